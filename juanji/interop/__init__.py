"""Exchange with files and other libraries: weights as safetensors and as PyTorch has them, ONNX in and out."""

from juanji.interop.export import save_onnx, to_onnx
from juanji.interop.files import write_atomically
from juanji.interop.onnx_module import OnnxModule, load_onnx
from juanji.interop.torchweights import Loaded, load_torch_weights, save_torch_weights
from juanji.interop.weights import load_weights, read_metadata, save_weights

__all__ = [
    "Loaded",
    "OnnxModule",
    "load_onnx",
    "load_torch_weights",
    "load_weights",
    "read_metadata",
    "save_onnx",
    "save_torch_weights",
    "save_weights",
    "to_onnx",
    "write_atomically",
]
