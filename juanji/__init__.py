"""juanji (卷积): convolutional networks that read like the textbook."""

import importlib
from typing import TYPE_CHECKING, Any

from juanji import errors, ops, random
from juanji.autodiff import grad, hvp, jacobian, jvp, value_and_grad, vjp
from juanji.cell import Cell
from juanji.errors import JuanjiError
from juanji.graph import Graph
from juanji.ops import *  # noqa: F403
from juanji.tensor import Tensor, trace
from juanji.testing import check_grads

if TYPE_CHECKING:
    from juanji import data, engine, interop, models, nn, optim, train
    from juanji.engine import compile
    from juanji.engine.explain import explain_plan
    from juanji.train.estimator import ImageClassifier


def __getattr__(name: str) -> Any:
    """Whatever is not the core is imported when it is asked for, so that `import juanji` stays quick."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("juanji")
    if name == "compile":
        return importlib.import_module("juanji.engine").compile
    if name == "explain_plan":
        return importlib.import_module("juanji.engine.explain").explain_plan
    if name == "ImageClassifier":
        return importlib.import_module("juanji.train.estimator").ImageClassifier
    if name in ("data", "engine", "interop", "models", "nn", "optim", "train"):
        return importlib.import_module(f"juanji.{name}")
    raise AttributeError(f"module 'juanji' has no attribute {name!r}")
