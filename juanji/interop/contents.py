"""What a weight file holds, by name, before any numbers are read; and files in the safetensors format."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from juanji.errors import WeightsError
from juanji.graph import Array
from juanji.interop.stored import DTYPES, Storage, Stored, contiguous

# The only key of a file's metadata: safetensors does not keep the order of several, and files of equal weights
# should be equal.
METADATA = "juanji"
LARGEST = 16_000_000  # bytes of a table of contents; that of a thousand tensors takes 150,000


@dataclass(eq=False)
class Contents:
    """An open weight file: its tensors by name, and what else it says, text by text."""

    path: str
    file: BinaryIO
    tensors: Mapping[str, Stored]
    metadata: Mapping[str, str] = field(default_factory=dict)
    last: tuple[Storage, Array] | None = None

    @property
    def own(self) -> bool:
        """Whether juanji wrote it, with axes in juanji's order."""
        return METADATA in self.metadata

    def read(self, name: str) -> Array:
        """The numbers of one tensor. Storages that several share, usually neighbours, are read once."""
        tensor = self.tensors[name]
        with naming(self.path):
            if self.last is None or self.last[0] is not tensor.storage:
                self.last = tensor.storage, tensor.storage.read(self.file)
            return tensor.of(self.last[1])


def in_memory(values: Mapping[str, Any]) -> Contents:
    """A state dictionary, of arrays or of PyTorch's tensors, as if it lay in a file. Raises WeightsError for others."""
    codes = {np.dtype(read): code for code, read in DTYPES.items() if code != "BF16"}
    file, tensors = io.BytesIO(), dict[str, Stored]()
    for name, value in values.items():
        try:
            array = np.ascontiguousarray(value)
            storage = Storage(codes[array.dtype], array.size, file.tell())
        except (KeyError, TypeError, RuntimeError) as error:
            raise WeightsError(
                "the state dictionary cannot be read",
                received=f"{name}: {type(error).__name__}: {error}"[:200],
                rule="tensors in the memory of the CPU, of types that NumPy has",
                fix="{name: value.detach().cpu().float() for name, value in state.items()}",
            ) from None
        tensors[name] = Stored(storage, array.shape, contiguous(array.shape))
        file.write(array.tobytes())
    return Contents("the state dictionary", file, tensors)


Reader = Callable[[BinaryIO, str], Contents]


@contextmanager
def opened(path: str | Path, reader: Reader, rule: str, fix: str) -> Iterator[Contents]:
    """A weight file, open, as the reader of its format gives it.

    Raises WeightsError, naming the file, for one that is missing, damaged or of another format, with the rule and what
    to do about it.
    """
    with ExitStack() as stack:
        with naming(str(path), rule, fix):
            file = stack.enter_context(open(path, "rb"))
            found = reader(file, str(path))
        yield found


@contextmanager
def naming(path: str, rule: str = "a whole file", fix: str = "copy or download it again") -> Iterator[None]:
    """Whatever goes wrong inside is told of this file."""
    try:
        yield
    except WeightsError as error:
        error.at = path
        raise
    except FileNotFoundError:
        raise WeightsError("there is no such weight file", at=path, fix="check the path") from None
    except Exception as error:  # whatever a damaged file makes Python's readers raise
        received = f"{type(error).__name__}: {error}"[:200]
        raise WeightsError("the weight file cannot be read", at=path, received=received, rule=rule, fix=fix) from None


def from_safetensors(file: BinaryIO, path: str) -> Contents:
    """The header is checked by the safetensors library and then read once more, for the places of the tensors."""
    from safetensors import safe_open

    (size,) = struct.unpack("<Q", file.read(8))
    if size > LARGEST:
        raise ValueError(f"a header of {size:,} bytes, where at most {LARGEST:,} are expected")
    with safe_open(path, framework="numpy") as checked:
        metadata = checked.metadata() or {}
    header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        itemsize = Storage(entry["dtype"], 1).size if entry["dtype"] in DTYPES else 1
        storage = Storage(entry["dtype"], (end - begin) // itemsize, 8 + size + begin)
        tensors[name] = Stored(storage, shape, contiguous(shape))
    return Contents(path, file, tensors, metadata)
