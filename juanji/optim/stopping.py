"""When to stop."""

from __future__ import annotations

from collections.abc import Mapping

from juanji.checks import positive
from juanji.optim.clipping import grad_norm
from juanji.tensor import Tensor


class StoppingRule:
    """The rule of 003's training algorithm: leave the loop when the change falls under ε.

    Call it once an epoch with what should settle, `{name: Tensor}`: gradients or parameters. It answers True when the
    Euclidean norm of the change since the last call is below `epsilon`; the first call has nothing to compare with
    and answers False. `change` holds the last norm::

        stop = StoppingRule(1e-4)
        for epoch in range(epochs):
            ...
            if stop(grads):
                break
    """

    def __init__(self, epsilon: float) -> None:
        positive("StoppingRule", epsilon=epsilon)
        self.epsilon = epsilon
        self.change = float("inf")
        self.last: Mapping[str, Tensor] | None = None

    def __call__(self, values: Mapping[str, Tensor]) -> bool:
        if self.last is not None:
            self.change = float(grad_norm({name: values[name] - old for name, old in self.last.items()}))
        self.last = dict(values)
        return self.change < self.epsilon
