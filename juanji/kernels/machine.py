"""From LLVM text to code that can be called."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from juanji.kernels import cache
from juanji.kernels.isa import ISA, host_features

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()

LOADED: dict[tuple[str, str], tuple[Any, int]] = {}  # what keeps a kernel's code in memory, and its address
LOCK = threading.Lock()


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
    """The text as object code, from the cache where it is there."""
    name = cache.key(text, llvm.get_host_cpu_name(), features(isa), llvmlite.__version__, str(llvm.llvm_version_info))
    code = cache.load(name)
    if code is None:
        code = target_machine(isa).emit_object(optimised(text, isa))
        cache.save(name, code)
    return code


def assembly(text: str, isa: ISA) -> str:
    """What the machine will run, for people and for tests to read."""
    return str(target_machine(isa).emit_assembly(optimised(text, isa)))


@functools.cache
def linker() -> Any:
    return llvm.create_lljit_compiler(llvm.Target.from_default_triple().create_target_machine(jit=True))


def addresses(texts: Sequence[str], isa: ISA) -> list[int]:
    """The address of each text's `kernel`, compiled where no run before has done so.

    One after the other: llvmlite lets one thread at a time into LLVM.
    """
    with LOCK:
        for text in dict.fromkeys(texts):
            if (isa.name, text) not in LOADED:
                library = llvm.JITLibraryBuilder().add_object_img(object_code(text, isa)).export_symbol("kernel")
                tracker = library.link(linker(), f"kernel{len(LOADED)}")
                LOADED[isa.name, text] = tracker, tracker["kernel"]
        return [LOADED[isa.name, text][1] for text in texts]
