"""Exchange with files and other libraries: weights in the safetensors format, and published ones of PyTorch."""

from juanji.interop.files import write_atomically
from juanji.interop.torchweights import load_torch_weights, save_torch_weights
from juanji.interop.weights import load_weights, read_metadata, save_weights

__all__ = [
    "load_torch_weights",
    "load_weights",
    "read_metadata",
    "save_torch_weights",
    "save_weights",
    "write_atomically",
]
