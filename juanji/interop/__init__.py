"""Exchange with files and other libraries: weights in the safetensors format."""

from juanji.interop.files import write_atomically
from juanji.interop.weights import load_weights, read_metadata, save_weights

__all__ = [
    "load_weights",
    "read_metadata",
    "save_weights",
    "write_atomically",
]
