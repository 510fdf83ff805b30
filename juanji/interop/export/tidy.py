"""What is done to the operations once all are written: biases and normalisation join what they follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from juanji.graph import Array
from juanji.interop.export.builder import Builder, Operation

# Operations with weights as second input, and which input their bias is.
BIAS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "DeformConv": 3}


class Tidy:
    """The operations of a builder, changed in place; `outputs` are the graph's, whose names stay."""

    def __init__(self, b: Builder, outputs: Iterable[str]) -> None:
        self.b, self.outputs = b, list(outputs)

    def run(self, fold_batch_norm: bool) -> None:
        self.drop_unused()
        self.rename_outputs()
        self.join(self.bias_of)
        if fold_batch_norm:
            self.join(self.normalisation_of)
        self.drop_unused()

    def drop_unused(self) -> None:
        """Leave out what no output needs, initialisers too."""
        needed, kept = set(self.outputs), []
        for operation in reversed(self.b.operations):
            if needed & set(operation.outputs):
                kept.append(operation)
                needed.update(operation.inputs)
        self.b.operations = kept[::-1]
        self.b.arrays = {name: array for name, array in self.b.arrays.items() if name in needed}

    def rename_outputs(self) -> None:
        """Give an operation's result the name of the graph's output that is the same."""
        makers = {name: operation for operation in self.b.operations for name in operation.outputs}
        renamed: dict[str, str] = {}
        for operation in [operation for operation in self.b.operations if operation.kind == "Identity"]:
            (given,), (name,) = operation.inputs, operation.outputs
            if given in makers and given not in renamed:
                renamed[given] = name
                self.b.operations.remove(operation)
        for operation in self.b.operations:
            operation.inputs = [renamed.get(name, name) for name in operation.inputs]
            operation.outputs = [renamed.get(name, name) for name in operation.outputs]

    def join(self, part_of: Callable[[Operation, Operation], bool]) -> None:
        """Let every contraction take up the operation that alone reads its result, where `part_of` has done so."""
        makers = {op.outputs[0]: op for op in self.b.operations if op.kind in BIAS}
        uses = Counter([name for op in self.b.operations for name in op.inputs] + self.outputs)
        kept = []
        for operation in self.b.operations:
            source = next((makers[name] for name in operation.inputs if name in makers and uses[name] == 1), None)
            if source is not None and part_of(source, operation):
                del makers[source.outputs[0]]
                source.outputs = operation.outputs
                makers[source.outputs[0]] = source
            else:
                kept.append(operation)
        self.b.operations = kept

    def channels(self, source: Operation) -> int:
        """How many output channels a contraction has; 0 where its weights are not known."""
        weights = self.b.arrays.get(source.inputs[1])
        if weights is None:
            return 0
        transposed = source.kind == "ConvTranspose"
        return int(weights.shape[1] * source.attributes["group"] if transposed else weights.shape[0])

    def bias_of(self, source: Operation, operation: Operation) -> bool:
        """Whether `operation` adds a number to each channel, which becomes the bias."""
        if operation.kind != "Add" or bias_name(source) or not (count := self.channels(source)):
            return False
        names = [name for name in operation.inputs if name != source.outputs[0]]
        if len(names) != 1 or names[0] not in self.b.arrays:
            return False
        array = self.b.arrays[names[0]]
        shape = (count,) if source.kind == "Gemm" else (count, *[1] * len(source.attributes["strides"]))
        if array.ndim > len(shape) or any(
            n not in (1, m) for n, m in zip(array.shape[::-1], shape[::-1], strict=False)
        ):
            return False
        give_bias(source, self.changed(names[0], np.broadcast_to(array, shape).reshape(count)))
        return True

    def normalisation_of(self, source: Operation, operation: Operation) -> bool:
        """Whether `operation` is a batch normalisation by known statistics, which the weights then take over."""
        own = bias_name(source)
        names = [*operation.inputs[1:], source.inputs[1], *filter(None, [own])]
        parts = [self.b.arrays[name].astype(np.float64) for name in names if name in self.b.arrays]
        if operation.kind != "BatchNormalization" or len(parts) < len(names):
            return False
        scale, shift, mean, var, weights, *bias = parts
        factor = scale / np.sqrt(var + operation.attributes["epsilon"])
        moved = ((bias[0] if bias else 0) - mean) * factor + shift
        dtype = self.b.arrays[source.inputs[1]].dtype
        source.inputs[1] = self.changed(source.inputs[1], scaled(source, weights, factor).astype(dtype))
        give_bias(source, self.changed(own or operation.inputs[2], moved.astype(dtype)))
        return True

    def changed(self, name: str, array: Array) -> str:
        """The name of an initialiser with other numbers: its own, if nothing else reads it."""
        if sum(name in operation.inputs for operation in self.b.operations) > 1:
            name = self.b.unique(name)
        self.b.arrays[name] = array
        return name


def bias_name(source: Operation) -> str:
    """The input that is a contraction's bias, "" for none."""
    return "".join(source.inputs[BIAS[source.kind] :][:1])


def give_bias(source: Operation, name: str) -> None:
    place = BIAS[source.kind]
    source.inputs += [""] * (place + 1 - len(source.inputs))
    source.inputs[place] = name


def scaled(source: Operation, weights: Array, factor: Array) -> Array:
    """Weights with a factor for each output channel."""
    if source.kind != "ConvTranspose":
        return weights * factor.reshape(-1, *[1] * (weights.ndim - 1))
    groups = source.attributes["group"]
    apart = weights.reshape(groups, -1, *weights.shape[1:])
    factors = factor.reshape(groups, 1, -1, *[1] * (weights.ndim - 2))
    return (apart * factors).reshape(weights.shape)
