"""juanji as a backend of ONNX, for the suites that others wrote: `onnx.backend.test`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from juanji.engine import compile
from juanji.interop.onnx_module import OnnxModule, load_onnx
from juanji.interop.packages import require_onnx
from juanji.tensor import SUPPORTED, Tensor

onnx = require_onnx()
from onnx.backend.base import Backend, BackendRep  # noqa: E402 (once it is known to be there)


class JuanjiRep(BackendRep):
    """A model made ready. It runs on the engine, or with JUANJI_BACKEND=numpy on the definitions."""

    def __init__(self, model: OnnxModule) -> None:
        self.model, self.compiled = model, compile(model)

    def run(self, inputs: Any, **options: Any) -> tuple[Any, ...]:
        """The outputs as arrays of the types that the file declares."""
        given = inputs if isinstance(inputs, list | tuple) else [inputs]
        fixed = [self.is_fixed(name, np.asarray(x)) for name, x in zip(self.model.input_names, given, strict=True)]
        # What is fixed goes in as numbers, for each of which there is a plan; the rest as arrays.
        mixed = [np.asarray(x).tolist() if fix else narrowed(x) for x, fix in zip(given, fixed, strict=True)]
        outputs = self.model(*given) if all(fixed) else self.compiled(*mixed)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(declared(y, port.element) for y, port in zip(outputs, self.model.outputs, strict=True))

    def is_fixed(self, name: str, x: np.ndarray[Any, Any]) -> bool:
        return name in self.model.static_inputs or narrowed(x).dtype not in SUPPORTED


def narrowed(x: Any) -> np.ndarray[Any, Any]:
    """Half precision as float32."""
    array = np.asarray(x)
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array


def declared(y: Any, element: int) -> np.ndarray[Any, Any]:
    array = y.array if isinstance(y, Tensor) else np.asarray(y)
    return array.astype(onnx.helper.tensor_dtype_to_np_dtype(element))


class JuanjiBackend(Backend):
    """`prepare(model).run(inputs)`, `run_model(model, inputs)`."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **options: Any) -> JuanjiRep:
        """The model ready to run. Raises what `load_onnx` raises."""
        return JuanjiRep(load_onnx(model))

    @classmethod
    def run_model(cls, model: Any, inputs: Sequence[Any], device: str = "CPU", **options: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU alone."""
        return device.partition(":")[0] == "CPU"
