"""ONNX without the package onnx."""

import importlib
import sys

import pytest

import juanji as jj
from juanji.errors import ArgumentError


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ArgumentError, match=r"ONNX files need the package onnx(.|\n)*pip install onnx"):
        jj.interop.load_onnx("net.onnx")
    monkeypatch.delitem(sys.modules, "juanji.interop.backend", raising=False)
    with pytest.raises(ArgumentError, match="ONNX files need the package onnx"):
        importlib.import_module("juanji.interop.backend")
