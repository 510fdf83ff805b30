"""Where a NaN or an infinity came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from juanji.autodiff import Recorded
from juanji.errors import NonFiniteError
from juanji.graph import Node, flatten
from juanji.nn.module import Module
from juanji.tensor import Tensor


def is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating or bool(np.isfinite(tensor.array).all())


def diagnose(
    model: Module, objective: Callable[[Module], Any], x: Tensor, grads: Mapping[str, Tensor], place: str, lr: float
) -> NonFiniteError:
    """The error for a step whose loss or gradients are not finite: where the first such value appeared.

    `objective(model)` gives (loss, anything) on the images x. The state must be that before the step; it is run again.
    """
    largest = float(np.abs(x.array).max())
    advice = f"a smaller learning rate (now {lr:g})"
    if largest > 10:
        advice += f", or scale the inputs to about −1…1 (now up to {largest:g})"
    at, found = first_bad_input(model, x) or first_bad_node(model, objective) or first_bad_gradient(grads)
    return NonFiniteError(
        f"training: {found}",
        at=at,
        received=place,
        rule="the parameters and buffers are still those before this step",
        fix=advice,
    )


def first_bad_input(model: Module, x: Tensor) -> tuple[str, str] | None:
    if not is_finite(x):
        return "the input", f"the images have {worst(x)} in them"
    bad = (name for name, tensor in model.state_dict().items() if not is_finite(tensor))
    name = next(bad, None)
    return None if name is None else (name, f"{name} has {worst(model.state_dict()[name])} in it")


def first_bad_node(model: Module, objective: Callable[[Module], Any]) -> tuple[str, str] | None:
    """Run forward once more and look at every value in the order in which they came to be."""
    recorded = Recorded(objective, [model], has_aux=True)
    for node in flatten(recorded.frame.nodes):
        if not is_finite(node.outputs[0]):
            return layer(model, node), f"{worst(node.outputs[0])} came out of the operator {node.name!r}"
    return None


def first_bad_gradient(grads: Mapping[str, Tensor]) -> tuple[str, str]:
    """The forward pass was sound: the parameter nearest to the loss whose gradient is not."""
    bad = [name for name, grad in grads.items() if not is_finite(grad)]
    return bad[-1], f"{worst(grads[bad[-1]])} in the gradient of " + ", ".join(bad)


def layer(model: Module, node: Node) -> str:
    return f"{node.path} ({model.modules()[node.path]})" if node.path else "outside the layers, such as the loss"


def worst(tensor: Tensor) -> str:
    return "NaN" if np.isnan(tensor.array).any() else "an infinite value"
