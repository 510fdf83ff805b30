"""Where a NaN or an infinity came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from juanji import recording
from juanji.graph import flatten
from juanji.nn.module import Module
from juanji.tensor import Tensor

Objective = Callable[[Module, Tensor], Any]
Found = tuple[str, str]


def is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating or bool(np.isfinite(tensor.array).all())


def diagnose(
    model: Module, objective: Objective, x: Tensor, grads: Mapping[str, Tensor], updated: Mapping[str, Tensor]
) -> Found:
    """(where, what): the first value of a step that is not finite.

    objective  `(model, x)` to the loss, and whatever else; the model must be as it was before the step, which is run
               again and may write to it
    updated    the parameters and buffers that the step led to
    """
    nearest_first = dict(reversed([*grads.items()]))  # nearest to the loss
    return (
        bad_input(model, x)
        or bad_node(model, objective, x)
        or bad_tensor(nearest_first, "came out of the derivative by")
        or bad_tensor(updated, "came out of the update of")
        or ("the step", "a value in it is beyond what its dtype holds")
    )


def bad_input(model: Module, x: Tensor) -> Found | None:
    if not is_finite(x):
        return "the input", f"the images have {worst(x)} in them"
    return bad_tensor(model.state_dict(), "was before this step in")


def bad_node(model: Module, objective: Objective, x: Tensor) -> Found | None:
    """Run forward once more and look at every value in the order in which they came to be."""
    with recording.Frame() as frame:
        frame.keep([x, *model.state_dict().values()])
        objective(model, x)
    called = {scope.path: scope.owner.label for scope in frame.scopes}
    for node in flatten(frame.nodes):
        if not is_finite(node.outputs[0]):
            at = f"{node.path} ({called[node.path]})" if node.path else "the network's own forward, or the loss"
            return at, f"{worst(node.outputs[0])} came out of the operator {node.name!r}"
    return None


def bad_tensor(tensors: Mapping[str, Tensor], came: str) -> Found | None:
    name = next((name for name, tensor in tensors.items() if not is_finite(tensor)), None)
    return None if name is None else (name, f"{worst(tensors[name])} {came} {name}")


def worst(tensor: Tensor) -> str:
    return "NaN" if np.isnan(tensor.array).any() else "an infinite value"


def advice(x: Tensor, lr: float) -> str:
    largest = float(np.abs(x.array).max())
    scale = f", or scale the inputs to about −1…1 (now up to {largest:g})" if largest > 10 else ""
    return f"a smaller learning rate (now {lr:g}){scale}"
