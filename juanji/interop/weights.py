"""Weight files: parameters and buffers by name in the safetensors format, which holds numbers and no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from juanji.cell import Stateful
from juanji.errors import WeightsError
from juanji.interop.contents import METADATA, Contents, from_safetensors, opened
from juanji.interop.files import write_atomically
from juanji.interop.fit import Fit
from juanji.interop.torchlayout import as_they_lie


def save_weights(model: Stateful, file: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write the parameters and buffers of `model`, or all that an optimiser or an average of weights remembers, to a
    safetensors file, whole or not at all.

    metadata  what else to keep, anything JSON can hold; `read_metadata` gives it back
    """
    from safetensors.numpy import save

    arrays = {name: np.asarray(tensor.array, order="C") for name, tensor in model.state_dict().items()}
    text = json.dumps(dict(metadata or {}), sort_keys=True, ensure_ascii=False)
    write_atomically(file, save(arrays, {METADATA: text}))


def load_weights(model: Stateful, file: str | Path) -> None:
    """Read what `save_weights` writes: every name, shape and kind of number must fit.

    Nothing is changed unless everything fits, and names and sizes are compared before numbers are read. Raises
    WeightsError, naming the file, for one that is missing, damaged, of another format, or of another model, with what
    to do about it.
    """
    cells = model.saved_cells()
    with safetensors(file) as source:
        fit = Fit(model, cells, source, as_they_lie(model), {name: name for name in source.tensors})
        fit.check()
        values = {path: fit.value(path) for path in cells}
    for path, value in values.items():
        cells[path].write(value)


def read_metadata(file: str | Path) -> dict[str, Any]:
    """What `save_weights` was given to keep; empty for the files of other programs. Errors as `load_weights`."""
    with safetensors(file) as source:
        text = source.metadata.get(METADATA, "{}")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict):
        raise WeightsError(
            "the metadata of a weight file is damaged",
            at=str(file),
            received=text[:80],
            rule="a dictionary in JSON",
            fix="copy the file again, or write it anew with save_weights",
        )
    return metadata


def safetensors(
    file: str | Path, fix: str = "copy it again; load_torch_weights reads what torch.save wrote"
) -> AbstractContextManager[Contents]:
    """A safetensors file, open, its header checked against its size."""
    return opened(file, from_safetensors, "a whole file in the safetensors format", fix)
