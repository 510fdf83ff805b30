"""From LLVM text to code that can be called."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from juanji.kernels import cache
from juanji.kernels.isa import ISA, host_features

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

LOADED: dict[str, tuple[Any, int]] = {}  # by kernels' names: what keeps their code in memory, and its address
CODES: dict[str, bytes] = {}  # object code that has been read and is not loaded yet
LOCK = threading.Lock()
MUCH = 1 << 20  # bytes of text that it pays to start other processes for


@dataclass(frozen=True)
class Kernel:
    """A kernel: the name of its object code, and its text, which is left out where the code is at hand."""

    name: str
    text: str = field(default="", repr=False, compare=False)

    @classmethod
    def of(cls, text: str, isa: ISA) -> Kernel:
        return cls(cache.key(text, *target(isa)), text)


def target(isa: ISA) -> tuple[str, ...]:
    """What object code depends on besides its text."""
    return llvm.get_host_cpu_name(), features(isa), llvmlite.__version__, str(llvm.llvm_version_info)


@functools.cache
def features(isa: ISA) -> str:
    """The host's features for LLVM, without those that the instruction set is meant to do without."""
    off = {name for name in host_features() if name.startswith(isa.without)} if isa.without else set()
    return ",".join([*(f"+{name}" for name in sorted(host_features() - off)), *(f"-{name}" for name in sorted(off))])


@functools.cache
def target_machine(isa: ISA) -> Any:
    """LLVM's description of the host, as far as the instruction set goes."""
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features(isa), opt=2, codemodel="jitdefault", jit=True
    )


def optimised(text: str, isa: ISA) -> Any:
    """The text as a module, with its stack slots in registers. All else that LLVM could do the text has done."""
    module = llvm.parse_assembly(text, llvm.create_context())
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    builder = llvm.create_pass_builder(target_machine(isa), llvm.create_pipeline_tuning_options(speed_level=1))
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return module


def object_code(text: str, isa: ISA) -> bytes:
    """The text as object code."""
    code: bytes = target_machine(isa).emit_object(optimised(text, isa))
    return code


def assembly(text: str, isa: ISA) -> str:
    """What the machine will run, for people and for tests to read."""
    return str(target_machine(isa).emit_assembly(optimised(text, isa)))


@functools.cache
def linker() -> Any:
    return llvm.create_lljit_compiler(llvm.Target.from_default_triple().create_target_machine(jit=True))


def at_hand(names: Iterable[str]) -> bool:
    """Whether the code of all these kernels is loaded or in the cache."""
    for name in names:
        if name not in LOADED and name not in CODES:
            code = cache.load(name)
            if code is None:
                return False
            CODES[name] = code
    return True


def prepare(kernels: Sequence[Kernel], isa: ISA, processes: int = 1) -> None:
    """Have the code of all these kernels at hand, written where no run before has done so.

    llvmlite lets one thread at a time into LLVM, so much text is shared out to so many processes, this one included.
    """
    missing = [each for each in dict.fromkeys(kernels) if not at_hand([each.name])]
    for each, code in written(sorted(missing, key=lambda each: len(each.text)), isa, processes):
        cache.save(each.name, code)
        CODES[each.name] = code


def addresses(kernels: Sequence[Kernel], isa: ISA, processes: int = 1) -> list[int]:
    """The address of each kernel's code."""
    with LOCK:
        prepare(kernels, isa, processes)
        for each in kernels:
            if each.name not in LOADED:
                library = llvm.JITLibraryBuilder().add_object_img(CODES.pop(each.name)).export_symbol("kernel")
                tracker = library.link(linker(), f"kernel{len(LOADED)}")
                LOADED[each.name] = tracker, tracker["kernel"]
        return [LOADED[each.name][1] for each in kernels]


def written(kernels: list[Kernel], isa: ISA, processes: int) -> Iterator[tuple[Kernel, bytes]]:
    """Kernels with their object code. This process begins with the first, others with the last."""
    found: list[tuple[Kernel, bytes]] = []
    others = processes - 1 if sum(len(each.text) for each in kernels) > MUCH and sys.executable else 0
    helpers = [threading.Thread(target=help_with, args=(kernels, isa, found), daemon=True) for _ in range(others)]
    for helper in helpers:
        helper.start()
    yield from mine(kernels, isa)
    for helper in helpers:
        helper.join()
    yield from found
    yield from mine(kernels, isa)  # what a helper has put back


def mine(kernels: list[Kernel], isa: ISA) -> Iterator[tuple[Kernel, bytes]]:
    """Kernels, one after the other, until there are none."""
    with contextlib.suppress(IndexError):
        while True:
            each = kernels.pop(0)
            yield each, object_code(each.text, isa)


def help_with(kernels: list[Kernel], isa: ISA, found: list[tuple[Kernel, bytes]]) -> None:
    """Have another process write kernels until there are none. Where it fails, what it was at is put back."""
    command = [sys.executable, "-m", "juanji.kernels.compiler", isa.name]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": {**os.environ, "PYTHONPATH": path}}
    each: Kernel | None = None
    with contextlib.suppress(OSError, EOFError, IndexError), subprocess.Popen(command, **pipes) as process:
        while True:
            each = None
            each = kernels.pop()
            send(process.stdin, each.text.encode())
            found.append((each, receive(process.stdout)))
    if each is not None:
        kernels.append(each)


def send(stream: Any, data: bytes) -> None:
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def receive(stream: Any) -> bytes:
    """What the other side has sent. Raises EOFError where it has ended."""
    return whole(stream, int.from_bytes(whole(stream, 8), "little"))


def whole(stream: Any, size: int) -> bytes:
    data: bytes = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data
