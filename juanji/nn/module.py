"""The base of layers and networks: state found through attributes, calls that know their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from juanji import recording, tree
from juanji.cell import Stateful
from juanji.checks import same_names
from juanji.errors import WeightsError
from juanji.summary import Summary, summarise
from juanji.tensor import Tensor, trace

Self = TypeVar("Self", bound="Module")


class Module(Stateful):
    """A layer or a network. Subclasses give cells and children as attributes and define `forward`.

    Calling a module runs `forward` under the module's path, so that errors, graphs and summaries can name it. Modules
    begin in training mode; `eval()` is for everything else.
    """

    training: bool = True
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

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by path: what a weight file holds."""
        return {path: cell.read() for path, cell in self.cells("parameter", "buffer").items()}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Take over parameters and buffers from tensors or arrays by path; dtypes are converted.

        Nothing is changed unless everything fits: WeightsError lists missing, unknown and misshapen names.
        """
        cells = self.cells("parameter", "buffer")
        for path, value in values.items():
            if not hasattr(value, "shape"):
                raise WeightsError(
                    f"{self.class_name}: what is loaded is tensors or arrays",
                    received=f"{path}: {value!r}",
                    fix="np.asarray(…) of it",
                )
        same_names(
            WeightsError,
            f"the weights do not fit {self.class_name}",
            {path: cell.shape for path, cell in cells.items()},
            {path: tuple(value.shape) for path, value in values.items()},
            fix="the state_dict() of a network that was made with the same layers and options",
        )
        tensors = {path: Tensor.of(values[path]).astype(cell.dtype) for path, cell in cells.items()}
        for path, cell in cells.items():
            cell.write(tensors[path])

    def astype(self: Self, dtype: Any) -> Self:
        """Convert every floating cell, in place, and return the module."""
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
        """Evaluation mode inside; afterwards every module is in the mode it was in."""
        modes = {module: module.training for module in self.modules().values()}
        try:
            self.eval()
            yield
        finally:
            for module, training in modes.items():
                module.training = training

    def summary(self, input_shape: Sequence[int], dtype: Any = "float32") -> Summary:
        """Print layer, output shape, parameters, multiplications and receptive field for one input of `input_shape`
        without the batch, such as (32, 32, 3); and return it. Raises what the network raises for such an input."""
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
    def class_name(self) -> str:
        """`Conv2d`."""
        return type(self).__name__

    @property
    def label(self) -> str:
        """The module in one line, `Conv2d(3, 16, 5)`, for errors and tables."""
        return f"{self.class_name}({self.extra()})"

    def extra(self) -> str:
        """The arguments worth showing: `3, 16, 5, stride=2`."""
        return ""


def tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree.leaves(values) if isinstance(leaf, Tensor)]
