"""The package onnx, an extra, and which of its operators' versions are known here."""

from __future__ import annotations

from typing import Any

from juanji.errors import ArgumentError

NEWEST = 28  # the last opset whose operators were looked at; onnxruntime 1.32 runs it


def require_onnx() -> Any:
    """The onnx package. Raises ArgumentError, with what to install, where there is none."""
    try:
        import onnx
    except ImportError:
        raise ArgumentError(
            "ONNX files need the package onnx",
            rule="an extra of juanji, because few programs want it",
            fix="pip install onnx",
        ) from None
    return onnx
