"""The operators of ONNX that juanji reads, a file per family. `OPERATORS` is the table."""

from juanji.interop.operators import (
    activation,
    arithmetic,
    convolution,
    indexing,
    linear,
    losses,
    movement,
    noise,
    normalisation,
    optimisation,
    pooling,
    quantisation,
    reduction,
    resampling,
    subgraph,
)
from juanji.interop.operators.node import OPERATORS, Operator

__all__ = ["OPERATORS", "Operator"]
