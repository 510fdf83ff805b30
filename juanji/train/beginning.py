"""What a network begins with: the weights of another run, or published ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from juanji.errors import WeightsError
from juanji.interop import Loaded, load_torch_weights, read_metadata
from juanji.nn.module import Module
from juanji.train.folder import CONFIG, WEIGHTS, read_config


def begin(model: Module, weights: str, classes: Sequence[str]) -> Loaded:
    """Give a network, whose outputs are these classes, weights of another. Returns what did not fit as it was.

    weights  a run folder, or what `load_torch_weights` takes: a file or hf:REPOSITORY

    A classifier for other classes begins anew: that of a run whose classes have other names, and any that does not fit.
    Kernels for images of other channels are adapted.
    Raises WeightsError for a run of another network, DataError for one whose configuration cannot be read, and what
    `load_torch_weights` raises.
    """
    file = str(Path(weights) / WEIGHTS) if Path(weights).is_dir() else weights
    check_network(model, weights)
    theirs = classes_of(file)
    return load_torch_weights(model, file, head=None if theirs in (None, list(classes)) else False, adapt_channels=True)


def check_network(model: Module, run: str) -> None:
    """Raise WeightsError where a folder, or the one that a file of weights lies in, is a run of another network."""
    path = Path(run).parent if Path(run).name == WEIGHTS else Path(run)
    if not (path / CONFIG).is_file() or classes_of(str(path / WEIGHTS)) is None:
        return  # no run, but maybe somebody else's repository
    theirs, ours = read_config(path).model["name"], getattr(model, "config", {}).get("name")
    if ours not in (None, theirs):
        raise WeightsError(
            f"{run}: this run is of another network",
            received=f"{theirs}, where {ours} is to be trained",
            rule="weights of the same network",
            fix="leave --model out, which takes over the run's",
        )


def classes_of(file: str) -> list[str] | None:
    """The names of the classes that a file of juanji's gives; None for the files of others."""
    if not file.endswith(".safetensors") or not Path(file).is_file():
        return None
    try:
        return read_metadata(file).get("classes")
    except WeightsError:  # which loading tells better
        return None
