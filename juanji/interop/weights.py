"""Weight files: parameters and buffers by name in the safetensors format, which holds numbers and no code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from juanji.checks import same_names
from juanji.errors import WeightsError
from juanji.interop.files import write_atomically
from juanji.nn.module import Module

# The only key of a file's metadata: safetensors does not keep the order of several, and files of equal weights
# should be equal.
METADATA = "juanji"


def save_weights(model: Module, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write the parameters and buffers of `model` to a safetensors file, whole or not at all.

    metadata  what else to keep, anything JSON can hold; `read_metadata` gives it back
    """
    from safetensors.numpy import save

    arrays = {name: np.asarray(tensor.array, order="C") for name, tensor in model.state_dict().items()}
    text = json.dumps(dict(metadata or {}), sort_keys=True, ensure_ascii=False)
    write_atomically(path, save(arrays, {METADATA: text}))


def load_weights(model: Module, path: str | Path) -> None:
    """Read parameters and buffers of `model` from a safetensors file: every name, shape and kind of number must fit.

    Nothing is changed unless everything fits, and names and sizes are compared before numbers are read. Raises
    WeightsError, naming the file, for one that is missing, damaged, of another format, or of another model.
    """
    with opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        check_fit(model, {name: Header(part) for name, part in slices.items()})
        model.load_state_dict({name: file.get_tensor(name) for name in slices})


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_weights` was given to keep; empty for the files of other programs. Errors as `load_weights`."""
    with opened(path) as file:
        text = (file.metadata() or {}).get(METADATA, "{}")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise WeightsError("the metadata of a weight file is damaged", at=str(path), received=text[:80])
    return metadata


class Header:
    """Shape and kind of number of a tensor in a file, without its numbers."""

    def __init__(self, part: Any) -> None:
        self.shape = tuple(part.get_shape())
        self.dtype = str(part.get_dtype())
        self.kind = {"F": "f", "I": "i", "U": "u", "B": "b"}.get(self.dtype[0]) if self.dtype != "BF16" else None


def check_fit(model: Module, headers: Mapping[str, Header]) -> None:
    """WeightsError unless the names, shapes and kinds of number are the model's."""
    cells = model.cells("parameter", "buffer")

    def misfit(name: str) -> str:
        cell, header = cells[name], headers[name]
        if (header.shape, header.kind) == (cell.shape, cell.dtype.kind):
            return ""
        return f"misfitting {name} {header.dtype}{header.shape}, the model's {cell.dtype}{cell.shape}"

    same_names(
        WeightsError,
        f"the weights do not fit {model.class_name}",
        {name: cell.shape for name, cell in cells.items()},
        {name: header.shape for name, header in headers.items()},
        misfit=misfit,
    )


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """A safetensors file opened, its header checked against its size; errors inside name the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            yield file
    except WeightsError as error:
        error.at = str(path)
        raise
    except FileNotFoundError:
        raise WeightsError("there is no such weight file", at=str(path), fix="check the path") from None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(
            "the weight file cannot be read",
            at=str(path),
            received=str(error),
            rule="a whole file in the safetensors format",
            fix="copy or download it again; if it has another format, convert it",
        ) from None
