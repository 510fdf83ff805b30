"""What of a network is not trained, and from when on it is."""

from __future__ import annotations

from collections.abc import Sequence

from juanji.errors import ArgumentError
from juanji.nn.container import Sequential
from juanji.nn.module import Module

Stage = tuple[str, ...]  # paths of modules


def stages(model: Module) -> list[Stage]:
    """The parts of a network from the input on that can be frozen one after another, without its head.

    They are its children that hold parameters, `layer1`, `layer2`, …; a child of normalisation, which has vectors of
    parameters only, goes with the one before it. Of a Sequential that is all there is before the head, its children.
    """
    heads = heads_of(model)
    children = trained(model, "")
    below = [path for path in children if not any(inside(head, path) for head in heads)]
    if len(below) == 1 and isinstance(model.modules()[below[0]], Sequential):
        below = [path for path in trained(model.modules()[below[0]], below[0]) if path not in heads]
    found: list[list[str]] = []
    for path in below:
        if found and all(len(cell.shape) == 1 for cell in model.modules()[path].cells("parameter").values()):
            found[-1].append(path)
        else:
            found.append([path])
    return [tuple(stage) for stage in found]


def trained(module: Module, prefix: str) -> list[str]:
    """The paths of the children that hold parameters."""
    children = {path: child for path, child in module.modules().items() if path and "." not in path}
    return [f"{prefix}.{path}" if prefix else path for path, child in children.items() if child.cells("parameter")]


def heads_of(model: Module) -> tuple[str, ...]:
    """The paths of the layers that give the classes: those the network lists, or its last child with parameters."""
    return tuple(getattr(model, "heads", ())) or tuple(trained(model, "")[-1:])


def inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}.")


def chosen(model: Module, freeze: str) -> list[Stage]:
    """The stages that `freeze` says, from the input on: a number of them, paths with commas between, "all", or none.

    Raises ArgumentError, with what there is, for more stages than there are or a path that the network does not have.
    """
    found = stages(model)
    if freeze in ("", "all"):
        return found if freeze else []
    named = [name.strip() for name in freeze.split(",")]
    if freeze.isdecimal() and 0 < int(freeze) <= len(found):
        return found[: int(freeze)]
    holding = {path for path, module in model.modules().items() if path and module.cells("parameter")}
    if freeze.isdecimal() or not holding.issuperset(named):
        raise ArgumentError(
            "training: there is no such part to freeze",
            received=f"freeze={freeze!r}",
            rule=f"1 to {len(found)} of these stages, or paths of modules: " + ", ".join("+".join(s) for s in found),
            fix='freeze="all" trains the head only',
        )
    return [(name,) for name in named]


def frozen_in(frozen: Sequence[Stage], unfreeze_at: Sequence[int], epoch: int) -> Stage:
    """The modules that are frozen in an epoch, counted from 1."""
    passed = sum(epoch >= at for at in unfreeze_at)
    left = 0 if unfreeze_at and passed == len(unfreeze_at) else max(len(frozen) - passed, 0)
    return tuple(path for stage in frozen[:left] for path in stage)


def freeze(model: Module, paths: Sequence[str]) -> list[str]:
    """Have these modules use their running statistics, as in `eval()`. Returns the paths of their parameters."""
    modules = model.modules()
    for path in paths:
        modules[path].eval()
    return held(model, paths)


def held(model: Module, paths: Sequence[str]) -> list[str]:
    """The paths of the parameters of these modules."""
    modules = model.modules()
    cells = {cell for path in paths for cell in modules[path].cells("parameter").values()}
    return [path for path, cell in model.cells("parameter").items() if cell in cells]
