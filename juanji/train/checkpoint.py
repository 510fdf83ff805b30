"""Checkpoints: one file with all that a training needs to go on as if it had never been interrupted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from juanji.cell import Cell
from juanji.checks import same_names
from juanji.errors import WeightsError
from juanji.graph import Array
from juanji.interop import write_atomically
from juanji.interop.contents import METADATA, naming
from juanji.interop.stored import Stored
from juanji.interop.weights import safetensors
from juanji.tensor import Tensor

VERSION = 1
MEND = "restore it from a copy, or begin another run with the weights of this one: juanji train DATA --init RUN"
Values = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file held: cells by path, values by path in groups of their own, and the rest as in JSON."""

    cells: dict[str, Array]
    groups: dict[str, Values]
    state: dict[str, Any]


def save_checkpoint(
    path: str | Path, cells: Mapping[str, Cell], groups: Mapping[str, Values], state: Mapping[str, Any]
) -> None:
    """Write a checkpoint, whole or not at all; the one before is there until this one is safe on the disk.

    cells   by path; each path begins with whose it is, "model/"
    groups  {group: {name: Tensor}} of what is in no cell
    state   what JSON can hold; its floating numbers come back bit for bit

    Raises DataError, naming the file, where it cannot be written; the last one is as it was then.
    """
    from safetensors.numpy import save

    tensors = {path: cell.read() for path, cell in cells.items()}
    tensors |= {f"{group}/{name}": tensor for group, values in groups.items() for name, tensor in values.items()}
    arrays = {name: np.asarray(tensor.array, order="C") for name, tensor in tensors.items()}
    text = json.dumps(state, ensure_ascii=False)
    head = {"version": VERSION, "state": text, "digest": digest(arrays, text)}
    write_atomically(path, save(arrays, {METADATA: json.dumps(head)}))


def load_checkpoint(
    path: str | Path, cells: Mapping[str, Cell], groups: Mapping[str, Mapping[str, Cell]]
) -> Checkpoint:
    """Read a checkpoint for these cells; no cell is written.

    groups  {group: {name: a cell of the shape and dtype that its tensors have}}; a group may be absent, or whole

    Names, shapes and dtypes are compared before numbers are read. Raises WeightsError, naming the file, for one that is
    missing, damaged, or of another training.
    """
    with safetensors(path, MEND) as file, naming(file.path):
        head = header(file.metadata)
        names = set(file.tensors)
        present = {group: members for group, members in groups.items() if any_of(group, names)}
        expected = dict(cells) | {f"{group}/{name}": cell for group, of in present.items() for name, cell in of.items()}
        check(expected, file.tensors)
        arrays = {name: file.read(name) for name in expected}
        if digest(arrays, head["state"]) != head["digest"]:
            raise damaged("the numbers in it are not those that were written")
    values = {group: {name: Tensor(arrays[f"{group}/{name}"]) for name in of} for group, of in present.items()}
    return Checkpoint({name: arrays[name] for name in cells}, values, json.loads(head["state"]))


def steps_taken(path: Path) -> int:
    """How many steps the training had taken when a checkpoint was written. Errors as `load_checkpoint`."""
    with safetensors(path, MEND) as file, naming(file.path):
        return int(json.loads(header(file.metadata)["state"])["progress"]["done"])


def any_of(group: str, names: set[str]) -> bool:
    return any(name.startswith(f"{group}/") for name in names)


def header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What stands at the head of a checkpoint. Raises WeightsError for another file."""
    try:
        head = json.loads(metadata[METADATA])
        if {"version": int, "state": str, "digest": str} != {key: type(value) for key, value in head.items()}:
            raise ValueError
    except (KeyError, ValueError, AttributeError, RecursionError):
        raise damaged("a safetensors file that is no checkpoint") from None
    if head["version"] != VERSION:
        raise WeightsError(
            "the checkpoint was written by another version",
            received=f"version {head['version']}",
            rule=f"version {VERSION}",
            fix="resume with the version of juanji that began the run",
        )
    return head


def check(expected: Mapping[str, Cell], found: Mapping[str, Stored]) -> None:
    def misfit(name: str) -> str:
        cell, stored = expected[name], found[name]
        kind = stored.storage.dtype
        if (stored.shape, kind) == (cell.shape, LETTERS[cell.dtype.kind] + str(cell.dtype.itemsize * 8)):
            return ""
        return f"misfitting {name} {kind}{stored.shape}, expected {cell.dtype}{cell.shape}"

    same_names(
        WeightsError,
        "the checkpoint is not one of this training",
        {name: cell.shape for name, cell in expected.items()},
        {name: stored.shape for name, stored in found.items()},
        misfit=misfit,
        fix="resume the run that it belongs to, with the network and the choices it had",
    )


LETTERS = {"f": "F", "i": "I", "u": "U"}  # safetensors' F32, I64, U32


def digest(arrays: Mapping[str, Array], text: str) -> str:
    """Of everything in a checkpoint."""
    found = hashlib.blake2b(text.encode(), digest_size=16)
    for part in parts(arrays):
        found.update(part)
    return found.hexdigest()


def parts(arrays: Mapping[str, Array]) -> Iterator[Any]:
    for name in sorted(arrays):
        yield f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode()
        yield np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)


def damaged(received: str) -> WeightsError:
    return WeightsError(
        "the checkpoint is damaged",
        received=received,
        rule="a whole file that a training wrote",
        fix=MEND,
    )
