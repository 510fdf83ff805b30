"""Networks as ONNX models: `save_onnx` writes a file, `to_onnx` gives the model."""

from juanji.interop.export.model import save_onnx, to_onnx

__all__ = ["save_onnx", "to_onnx"]
