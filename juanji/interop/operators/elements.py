"""ONNX's element types as NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np

from juanji.errors import DataError
from juanji.graph import Array
from juanji.interop.operators.node import Operator, Value, array_of, held
from juanji.ops.elementwise import astype
from juanji.ops.math import not_equal
from juanji.tensor import SUPPORTED, Tensor

# By ONNX's number (TensorProto.DataType). Half precision is computed in float32, so it is float32 here.
ELEMENTS: dict[int, Any] = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    8: np.object_,  # strings
    9: np.bool_,
    10: np.float32,  # float16
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
    16: np.float32,  # bfloat16
}
NARROW = (1, 10, 16)
TYPES = "floats of 16, 32 and 64 bits, whole numbers of 8 to 64 bits, truth values, strings"


def element_type(node: Operator, number: int | None) -> np.dtype[Any]:
    """The dtype that an ONNX element type is held in. Raises DataError for those that juanji does not know."""
    if number not in ELEMENTS:
        raise DataError(
            f"{node.op}: this element type is not supported",
            received=f"data type {number} of ONNX",
            rule=TYPES,
        )
    return node.floating if number in NARROW else np.dtype(ELEMENTS[number])


def converted(value: Value, dtype: np.dtype[Any]) -> Value:
    """`value` in another element type, by ONNX's rules: towards zero, and true for all but 0."""
    if isinstance(value, Tensor) and dtype in SUPPORTED:
        return astype(not_equal(value, 0) if dtype.kind == "b" != value.dtype.kind else value, dtype)
    return held(cast_array(array_of(value), dtype), dtype if dtype.kind == "f" else None)


def cast_array(array: Array, dtype: np.dtype[Any]) -> Array:
    with np.errstate(all="ignore"):
        return array.astype(dtype)
