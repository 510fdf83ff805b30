"""Exchange with files and other libraries: ONNX graphs, weights in the safetensors format."""

from juanji.interop.files import write_atomically
from juanji.interop.onnx_module import OnnxModule, load_onnx
from juanji.interop.weights import load_weights, read_metadata, save_weights

__all__ = [
    "OnnxModule",
    "load_onnx",
    "load_weights",
    "read_metadata",
    "save_weights",
    "write_atomically",
]
