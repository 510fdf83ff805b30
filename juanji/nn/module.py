"""The base of layers and networks: state found through attributes, calls that know their place."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from juanji import recording, tree
from juanji.cell import Stateful
from juanji.checks import bad
from juanji.engine import platform
from juanji.errors import DTypeError
from juanji.summary import Summary, summarise
from juanji.tensor import Tensor, trace

FLOATING = (np.dtype("float32"), np.dtype("float64"))  # what parameters may be
EVALUATING = threading.Lock()  # for a moment, while modes are changed
platform.around_fork(EVALUATING)
Self = TypeVar("Self", bound="Module")


class Module(Stateful):
    """A layer or a network. Subclasses give cells and children as attributes and define `forward`.

    Calling a module runs `forward` under the module's path, so that errors, graphs and summaries can name it. Modules
    begin in training mode; `eval()` is for everything else.
    """

    training: bool = True
    _kept = ("parameter", "buffer")
    layout = "NHWC"  # where a summary looks for the channels of images

    def forward(self, *args: Any) -> Any:
        raise NotImplementedError(f"{self.class_name} has no forward")

    def __call__(self, *args: Any, **options: Any) -> Any:
        with recording.scope(self.place, self):
            output = self.forward(*args, **options)
            if recording.active():
                recording.note_call(self, *(tensors(values) for values in (args, output)))
            return output

    def modules(self) -> dict[str, Module]:
        """This module, as "", and all below it, by path."""
        return {path: module for path, module in self.walk() if isinstance(module, Module)}

    def parameters(self) -> dict[str, Tensor]:
        """What is trained, by path."""
        return {path: cell.read() for path, cell in self.cells("parameter").items()}

    def buffers(self) -> dict[str, Tensor]:
        """What is kept but not trained, such as running statistics, by path."""
        return {path: cell.read() for path, cell in self.cells("buffer").items()}

    def astype(self: Self, dtype: Any) -> Self:
        """Convert every floating cell to "float32" or "float64", in place, and return the module. Raises DTypeError for
        another dtype; to compute in bfloat16 is a choice of `juanji.compile`."""
        if not isinstance(dtype, str | type | np.dtype) or dtype not in FLOATING:
            raise DTypeError(
                f"{self.class_name}.astype: parameters cannot be of this type",
                received=getattr(dtype, "__name__", str(dtype)),
                rule=" or ".join(map(str, FLOATING)),
                fix='precision="bfloat16" of jj.compile' if "16" in str(dtype) else '.astype("float32")',
            )
        for cell in self.cells().values():
            cell.convert(dtype)
        return self

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode, here and below: batch statistics, dropout. Returns the module."""
        for module in self.modules().values():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """The mode for using the network: running statistics, no dropout. Returns the module."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside; afterwards, once nobody is inside any more, every module is in the mode it was in."""
        with EVALUATING:
            inside, modes = self.__dict__.get("_evaluating", (0, {}))
            modes = modes or {module: module.training for module in self.modules().values()}
            object.__setattr__(self, "_evaluating", (inside + 1, modes))
            self.eval()
        try:
            yield
        finally:
            with EVALUATING:
                inside, modes = self.__dict__.pop("_evaluating")
                if inside > 1:
                    object.__setattr__(self, "_evaluating", (inside - 1, modes))
                else:
                    for module, training in modes.items():
                        module.training = training

    def summary(self, input_shape: Sequence[int], dtype: Any = "float32") -> Summary:
        """Print layer, output shape, parameters, multiplications and receptive field for one input of `input_shape`
        without the batch, such as (32, 32, 3); and return it. Raises what the network raises for such an input."""
        if not isinstance(input_shape, Sequence):
            raise bad("summary", "input_shape", input_shape, "a shape without the batch", (32, 32, 3))
        with self.evaluating():
            graph = trace(self, Tensor.spec((1, *input_shape), dtype))
        result = summarise(graph, self.layout)
        print(result)
        return result

    def __repr__(self) -> str:
        children = [f"{name}: {child!r}".replace("\n", "\n  ") for name, child in self._children.items()]
        inside = "".join(f"\n  {child}" for child in children)
        return self.label if not children else f"{self.class_name}({inside}\n)"

    @property
    def label(self) -> str:
        """The module in one line, `Conv2d(3, 16, 5)`, for errors and tables."""
        return f"{self.class_name}({self.extra()})"

    def extra(self) -> str:
        """The arguments worth showing: `3, 16, 5, stride=2`."""
        return ""


def tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(values) if isinstance(leaf, Tensor)]
