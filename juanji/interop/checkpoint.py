"""PyTorch's checkpoints, in both of their formats; and weight files of whichever format.

A checkpoint is a pickle that speaks of storages, and the storages' bytes: in a zip archive since PyTorch 1.6, one after
the other before. Source: torch/serialization.py, torch/_utils.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from juanji.errors import WeightsError
from juanji.interop import archive
from juanji.interop.contents import LARGEST, Contents, Reader, from_safetensors, opened
from juanji.interop.pickles import Function, Machine, is_key, ordered
from juanji.interop.stored import Storage, Stored, is_size

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the format before PyTorch 1.6
# Where programs put the weights that they save beside other things, the likeliest first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")


def contents(path: str | Path) -> AbstractContextManager[Contents]:
    """A weight file, open, whichever its format.

    Raises WeightsError, naming the file, for one that is missing, damaged, of none of the formats, or that holds more
    than data.
    """
    return opened(
        path,
        lambda file, name: format_of(file)(file, name),
        "a whole file, in the safetensors format or written by torch.save",
        "copy or download it again; if it has another format, convert it",
    )


def format_of(file: BinaryIO) -> Reader:
    """The reader of a file's format, told by its first bytes."""
    head = file.read(9)
    file.seek(0)
    if head[8:] == b"{":
        return from_safetensors
    return from_zip if head.startswith(b"PK") else from_legacy if head.startswith(b"\x80") else from_safetensors


# PyTorch's checkpoints


class Storages:
    """The storages that a checkpoint's pickle speaks of, by key. `place` finds one's bytes in the file."""

    def __init__(self, place: Callable[[str, Storage], None]) -> None:
        self.place, self.found = place, dict[str, Storage]()

    def __call__(self, identity: Any) -> Storage:
        """The storage of a persistent id ("storage", type, key, device, count)."""
        kind, dtype, key, _, count, *view = identity
        if kind != "storage" or not (isinstance(dtype, str) and isinstance(key, str) and is_size(count)):
            raise ValueError("a persistent id that is none of a storage")
        if any(part is not None for part in view):
            raise ValueError("a storage that is a view of another, as only early versions of PyTorch wrote")
        known = self.found.get(key)
        if known is None:
            known = self.found[key] = Storage(dtype, count)
            self.place(key, known)
        if (known.dtype, known.count) != (dtype, count):
            raise ValueError(f"the storage {key} is given with two types or sizes")
        return known


def tensor(storage: Storage, offset: int, size: Any, stride: Any, *_: Any) -> Stored:
    """`torch._utils._rebuild_tensor_v2`. Whether it needs gradients, and its hooks, are of no interest."""
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return Stored(storage, tuple(size), tuple(stride), offset)


STORAGES = {
    "Double": "F64",
    "Float": "F32",
    "Half": "F16",
    "BFloat16": "BF16",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
    "Byte": "U8",
    "Bool": "BOOL",
}
# All that a checkpoint may name.
NAMES: dict[str, Any] = {
    **{f"{module}.{kind}Storage": dtype for kind, dtype in STORAGES.items() for module in ("torch", "torch.cuda")},
    "torch._utils._rebuild_tensor": Function(tensor),
    "torch._utils._rebuild_tensor_v2": Function(tensor),
    "torch._utils._rebuild_parameter": Function(lambda data, *_: data),
    "torch._utils._rebuild_parameter_with_state": Function(lambda data, *_: data),
    "torch.Size": Function(tuple),
    "collections.OrderedDict": Function(ordered),
}


def from_zip(file: BinaryIO, path: str) -> Contents:
    """NAME/data.pkl speaks of the storages NAME/data/KEY; NAME/byteorder says how their numbers lie."""
    members = archive.members(file)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(
            "this zip archive is no checkpoint of PyTorch",
            received=", ".join(sorted(members)[:5])[:200] or "an empty archive",
            rule="one NAME/data.pkl",
        )
    prefix = pickles[0].removesuffix("data.pkl")
    order: Literal["<", ">"] = ">" if content(file, members.get(prefix + "byteorder")) == b"big" else "<"

    def place(key: str, storage: Storage) -> None:
        member = members.get(f"{prefix}data/{key}")
        if member is None or member.size != storage.size:
            raise WeightsError(
                "a member of the checkpoint cannot be used",
                received=f"{prefix}data/{key[:80]}: {'missing' if member is None else f'{member.size:,} bytes'}",
                rule=f"{storage.count:,} numbers of {storage.dtype}, {storage.size:,} bytes",
                fix="download the file again",
            )
        storage.start, storage.crc, storage.order = member.start, member.crc, order

    machine = Machine(NAMES, Storages(place))
    return Contents(path, file, state_of(machine.run(io.BytesIO(content(file, members[pickles[0]])))))


def content(file: BinaryIO, member: archive.Member | None) -> bytes:
    """The bytes of a small member; none of one that is missing."""
    if member is None:
        return b""
    if member.size > LARGEST:
        raise ValueError(f"{member.name}: {member.size:,} bytes, where at most {LARGEST:,} are expected")
    return Storage("U8", member.size, member.start, member.crc).read(file).tobytes()


def from_legacy(file: BinaryIO, path: str) -> Contents:
    """Pickles of a magic number, the protocol, the writer's machine, the objects, and the storages' keys; then the
    storages, each as a count of eight bytes and its numbers, the lowest byte first."""
    head = io.BytesIO(file.read(LARGEST))
    storages = Storages(lambda key, storage: None)
    magic, protocol, _, value, keys = (Machine(NAMES, storages).run(head) for _ in range(5))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError("a pickle that torch.save did not write")
    end, place = file.seek(0, 2), head.tell()
    if type(keys) is not list or not all(map(is_key, keys)) or set(keys) != set(storages.found):
        raise ValueError("the storages are not those that the objects speak of")
    for key in keys:
        storage = storages.found[key]
        file.seek(place)
        count, storage.start = int.from_bytes(file.read(8), "little"), place + 8
        place = storage.start + storage.size
        if count != storage.count or place > end:
            raise ValueError(f"the storage {key} has {count:,} numbers, or fewer; {storage.count:,} are expected")
    return Contents(path, file, state_of(value))


def state_of(value: Any) -> dict[str, Stored]:
    """The state dictionary in what was saved: that itself, or a dictionary that holds it under a usual name."""
    for _ in WRAPPERS:  # no deeper than that, so that a dictionary inside itself ends, too
        inner = (value[key] for key in WRAPPERS if type(value) is dict and type(value.get(key)) is dict)
        value = next(inner, value)
    state = value if type(value) is dict else {}
    others = [f"{key!s:.80} ({type(x).__name__})" for key, x in state.items() if not is_entry(key, x)]
    if others or not state:
        raise WeightsError(
            "there is no state dictionary in the checkpoint",
            received=", ".join(others[:10]) or f"{type(value).__name__}, without entries",
            rule="tensors by name, or a dictionary that holds such a one under " + ", ".join(WRAPPERS),
            fix="in PyTorch, torch.save(model.state_dict(), file) writes the weights alone",
        )
    return state


def is_entry(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Stored)
