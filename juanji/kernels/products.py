"""Which primitives are contractions, and of what."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from juanji.graph import PRIMITIVES, Node
from juanji.kernels import convolution
from juanji.kernels.contraction import Contraction, Dim
from juanji.kernels.lowering import Place
from juanji.kernels.text import KINDS
from juanji.tensor import Tensor

Places = Mapping[int, Place]


@dataclass(frozen=True)
class Product:
    """A node as contractions of `a` and `b`, which together fill its output.

    batch  the size that they leave open
    grids  for each contraction, along each of its rows: where in the output it begins, and by how much it steps
    """

    a: Tensor
    b: Tensor
    contractions: list[Contraction]
    batch: int
    grids: list[tuple[tuple[int, int], ...]]


Rule = Callable[[Node, Places], Product]


def lowers(name: str) -> Callable[[Rule], Rule]:
    def wrap(rule: Rule) -> Rule:
        PRIMITIVES[name].lower["contraction"] = rule
        return rule

    return wrap


def moved(contraction: Contraction, a: Place, b: Place, c: Place) -> Contraction:
    """The contraction with its operands where and as they lie in their buffers."""
    stored: Any = tuple("bfloat" if place.rounded else "" for place in (a, b, c))
    a0, b0, c0 = contraction.a0 + a.offset, contraction.b0 + b.offset, contraction.c0 + c.offset
    return replace(contraction, stored=stored, a0=a0, b0=b0, c0=c0)


def image(place: Place) -> tuple[int, ...]:
    """The strides of images, without that of the channels, which lie together."""
    return place.strides[:-1]


@lowers("conv")
def conv(node: Node, places: Places) -> Product:
    (x, w), (y,) = node.inputs, node.outputs
    a, b, c = (places[id(tensor)] for tensor in (x, w, y))
    kind = KINDS[x.dtype.name]
    face = convolution.forward(node.attrs["spec"], x.shape[-1], y.shape[-1], image(a), image(c), kind)
    return Product(x, w, [moved(face, a, b, c)], x.shape[0], [((0, 1),) * (x.ndim - 2)])


@lowers("conv_input_grad")
def conv_input_grad(node: Node, places: Places) -> Product:
    (w, g), (x,) = node.inputs, node.outputs
    a, b, c = (places[id(tensor)] for tensor in (g, w, x))
    kind, spec = KINDS[x.dtype.name], node.attrs["spec"]
    faces = convolution.input_grad(spec, x.shape[-1], g.shape[-1], image(a), image(c), kind)
    axes = [convolution.sectors(spec, axis) for axis in range(spec.rank)]
    grids = [
        tuple((one.first, step) for one, step in zip(sector, spec.stride, strict=True))
        for sector in itertools.product(*axes)
    ]
    return Product(g, w, [moved(face, a, b, c) for face in faces], g.shape[0], grids)


@lowers("conv_weight_grad")
def conv_weight_grad(node: Node, places: Places) -> Product:
    (x, g), (w,) = node.inputs, node.outputs
    a, b, c = (places[id(tensor)] for tensor in (x, g, w))
    kind = KINDS[x.dtype.name]
    face = convolution.weight_grad(node.attrs["spec"], x.shape[-1], g.shape[-1], image(a), image(b), kind)
    return Product(x, g, [moved(face, a, b, c)], x.shape[0], [()])


@lowers("matmul")
def matmul(node: Node, places: Places) -> Product:
    (x, y), (z,) = node.inputs, node.outputs
    a, b, c = (places[id(tensor)] for tensor in (x, y, z))
    (m, k), n = x.shape[-2:], y.shape[-1]
    outer = [Dim(size, *steps) for size, *steps in zip(x.shape[:-2], a.strides, b.strides, c.strides, strict=False)]
    (*_, am, ak), (*_, bk, bn) = a.strides, b.strides
    face = convolution.matmul(m, k, n, (am, ak), (bk, bn), c.strides[-2], outer, KINDS[x.dtype.name])
    return Product(x, y, [moved(face, a, b, c)], 1, [((0, 1),)])
