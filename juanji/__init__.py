"""juanji (卷积): convolutional networks that read like the textbook."""

from juanji import data, errors, interop, models, nn, ops, optim, random, train
from juanji.autodiff import grad, hvp, jacobian, jvp, value_and_grad, vjp
from juanji.cell import Cell
from juanji.errors import JuanjiError
from juanji.graph import Graph
from juanji.ops import *  # noqa: F403
from juanji.tensor import Tensor, trace
from juanji.testing import check_grads
