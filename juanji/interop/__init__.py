"""Exchange with files and other libraries: weights in the safetensors format, networks as ONNX."""

from juanji.interop.export import save_onnx, to_onnx
from juanji.interop.files import write_atomically
from juanji.interop.weights import load_weights, read_metadata, save_weights

__all__ = [
    "load_weights",
    "read_metadata",
    "save_onnx",
    "save_weights",
    "to_onnx",
    "write_atomically",
]
