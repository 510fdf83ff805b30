"""How operators without a kernel of their own become machine code: element by element.

A lowering says what one element of an operator's result is, given the index of that element; it asks for elements of
the inputs by indices of its own. Whatever is not stored in memory is computed where it is asked for, so chains of
operators fuse by themselves. Along one axis, the lanes of a vector, W elements are computed at once: their indices
differ by the number of the lane.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from juanji.graph import Node
from juanji.kernels.functions import emit
from juanji.kernels.isa import ISA
from juanji.kernels.text import KINDS, Int, Text, Value, const, index, kernel_text
from juanji.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Index:
    """const + Σ coefficient·counter + lane·(number of the lane) + vector: a place along one axis.

    Counters are registers, by name. `vector` holds what is different in every lane without being a multiple of its
    number. The counter of the axis that lanes run along always has the coefficient `lane`.
    """

    const: int = 0
    terms: tuple[tuple[str, int], ...] = ()
    lane: int = 0
    vector: Value | None = None

    def scaled(self, factor: int) -> Index:
        """Times a number; not for indices with a vector part."""
        if factor == 0:
            return Index()
        return Index(self.const * factor, tuple((x, c * factor) for x, c in self.terms), self.lane * factor)

    def shifted(self, offset: int) -> Index:
        return replace(self, const=self.const + offset) if offset else self


Indices = tuple[Index, ...]
ZERO = Index()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies: `strides` and `offset` in elements from the address of the buffer `key`.

    rounded  whether its floats are rounded to bfloat16
    """

    key: Any
    strides: tuple[int, ...]
    offset: int = 0
    rounded: bool = False

    def kind(self, dtype: np.dtype[Any]) -> str:
        """The kind of what lies there, of a tensor of that dtype."""
        return "bfloat" if self.rounded else KINDS[dtype.name]


class Lowering:
    """One kernel while it is written.

    places     by the identity of tensors, where those that are stored lie
    producers  by the identity of tensors, the node that makes them
    slots      arguments that the kernel has already

    While it is written: `lanes` are computed at once, of which the first `active` count; `walked` are the counters of
    axes that lanes run along, `opaque` those that more than addresses depend on, `accesses` all addresses so far.
    """

    def __init__(
        self,
        isa: ISA,
        places: Mapping[int, Place],
        producers: Mapping[int, Node],
        slots: Sequence[Any] = (),
        text: Text | None = None,
    ) -> None:
        self.isa, self.places, self.producers = isa, places, producers
        self.text: Text = text or kernel_text(isa.fused)
        self.slots: list[Any] = list(slots)
        self.ranges: dict[str, tuple[int, int]] = {}
        self.scopes: list[dict[Any, Any]] = [{}]
        self.lanes = 1
        self.mask: Value | None = None
        self.accesses: list[Index] = []
        self.opaque: set[str] = set()
        self.making: set[int] = set()
        self.walked: set[str] = set()
        self.active = 1

    # Arguments

    def slot(self, key: Any, kind: str = "ptr") -> Value:
        """The kernel's argument `key`, loaded once at its beginning."""
        known = self.scopes[0].get(("slot", key))
        if known is None:
            self.slots.append(key)
            position = len(self.text.lines)
            known = self.text.slot(len(self.slots) - 1, kind)
            # Arguments are loaded ahead of everything else, where they are known to all that follows.
            loads = self.text.lines[position:]
            del self.text.lines[position:]
            self.text.slots.extend(loads)
            self.scopes[0]["slot", key] = known
        return known

    def number(self, value: Any, dtype: np.dtype[Any]) -> Value:
        """A constant. Those that are not plain ones are arguments, so that kernels for other batch sizes are alike."""
        kind = KINDS[dtype.name]
        value = value.item() if hasattr(value, "item") else value
        if kind == "i1" or value in (-2, -1, 0, 0.5, 1, 2):
            return const(value, kind)
        return self.slot(("number", dtype.name, value), kind)

    # Scopes: what was computed inside a loop is not known outside it.

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        self.scopes.append({})
        try:
            yield
        finally:
            self.scopes.pop()

    def known(self, key: Any) -> Any:
        return next((scope[key] for scope in reversed(self.scopes) if key in scope), None)

    def loop(self, start: Int, stop: Int, size: int, body: Callable[[Index], None], step: int = 1) -> None:
        """`body(i)` for i in start … stop, which lies in 0 … size."""

        def inside(i: Int) -> None:
            with self.scope():
                body(self.counter(i, 0, size - 1))

        self.text.loop(start, stop, inside, step)

    def counter(self, i: Int, low: int, high: int) -> Index:
        if isinstance(i, int):
            return Index(i)
        self.ranges[i.text] = (low, high)
        return Index(0, ((i.text, 1),))

    def lane_loop(self, start: Int, stop: Int, size: int, body: Callable[[Index], None]) -> None:
        """`body(i)` over start … stop with as many elements at a time as a vector has lanes, the last ones masked."""
        width, t = self.isa.lanes(), self.text

        def inside(i: Index, mask: Value | None, active: int = width) -> None:
            self.lanes, self.mask, self.active = width, mask, active
            self.walked.update(name for name, _ in i.terms)
            with self.scope():
                body(replace(i, lane=1))
            self.lanes, self.mask, self.active = 1, None, 1

        if isinstance(start, int) and isinstance(stop, int):
            full = start + (stop - start) // width * width
            self.loop(start, full, size, lambda i: inside(i, None), width)
            if full < stop:
                inside(Index(full), t.first(stop - full, width), stop - full)
            return
        count = t.op("sub nsw", index(stop), index(start))
        end = t.op("add nsw", index(start), t.op("and", count, const(-width, "i64")))
        self.loop(start, end, size, lambda i: inside(i, None), width)
        rest = t.op("sub nsw", index(stop), end)
        t.when(
            t.compare("sgt", rest, const(0, "i64")),
            lambda: inside(self.counter(end, 0, size - 1), t.first(rest, width)),
        )

    # Index arithmetic

    def plus(self, x: Index, y: Index) -> Index:
        terms = dict(x.terms)
        for name, c in y.terms:
            terms[name] = terms.get(name, 0) + c
        kept = tuple((name, c) for name, c in terms.items() if c)
        vector = x.vector if y.vector is None else y.vector
        if x.vector is not None and y.vector is not None:
            vector = self.text.op("add nsw", x.vector, y.vector)
        return Index(x.const + y.const, kept, x.lane + y.lane, vector)

    def times(self, x: Index, factor: int) -> Index:
        product = x.scaled(factor)
        if x.vector is not None and factor:
            product = replace(product, vector=self.text.op("mul nsw", x.vector, const(factor, "i64", x.vector.lanes)))
        return product

    def total(self, indices: Sequence[Index], factors: Sequence[int]) -> Index:
        result = ZERO
        for x, factor in zip(indices, factors, strict=True):
            if factor:
                result = self.plus(result, self.times(x, factor))
        return result

    def bounds(self, x: Index) -> tuple[int, int] | None:
        """The least and the largest value, where they are known. A counter of lanes speaks for all of them."""
        if x.vector is not None or any(name not in self.ranges for name, _ in x.terms):
            return None
        low = high = x.const
        if not self.walked.intersection(name for name, _ in x.terms):
            ends = sorted((0, (self.active - 1) * x.lane))
            low, high = low + ends[0], high + ends[1]
        for name, c in x.terms:
            ends = sorted(c * end for end in self.ranges[name])
            low, high = low + ends[0], high + ends[1]
        return low, high

    def within(self, x: Index, size: int) -> bool:
        bounds = self.bounds(x)
        return bounds is not None and bounds[0] >= 0 and bounds[1] < size

    def scalar(self, x: Index) -> Int:
        """The part of an index that all lanes share, as a number."""
        result: Int = x.const
        for name, c in x.terms:
            result = self.text.add(result, self.text.mul(Value(name, "i64"), c))
        return result

    def spread(self, x: Index) -> Value | None:
        """The part that lanes do not share; None where they share everything."""
        t, part = self.text, x.vector
        if x.lane:
            steps = ", ".join(f"i64 {i * x.lane}" for i in range(self.lanes))
            own = Value(f"<{steps}>", "i64", self.lanes)
            part = own if part is None else t.op("add nsw", part, own)
        return part

    def integer(self, x: Index) -> Value:
        """An index as a number, or as one for each lane."""
        self.opaque.update(name for name, _ in x.terms)
        base, part = index(self.scalar(x)), self.spread(x)
        return base if part is None else self.text.op("add nsw", self.text.splat(base, part.lanes), part)

    def place_of(self, x: Value, low: int | None = None, high: int | None = None) -> Index:
        """A computed whole number as an index; it lies in low … high if those are given."""
        if x.lanes > 1:
            return Index(vector=x)
        if not x.text.startswith("%"):
            return Index(int(x.text))
        if low is not None and high is not None:
            self.ranges[x.text] = (low, high)
        return Index(0, ((x.text, 1),))

    def divmod(self, x: Index, size: int) -> tuple[Index, Index]:
        """Quotient and remainder of an index of at least 0, without arithmetic where the terms say them."""
        if size == 1:
            return x, ZERO
        self.opaque.update(name for name, _ in x.terms)
        if x.vector is None:
            whole = tuple((name, c // size) for name, c in x.terms if c % size == 0)
            part = tuple((name, c) for name, c in x.terms if c % size)
            even = x.lane % size == 0
            inner = Index(x.const % size, part, 0 if even else x.lane)
            if self.within(inner, size):
                return Index(x.const // size, whole, x.lane // size if even else 0), inner
        number = self.integer(x)
        by = const(size, "i64", number.lanes)
        quotient = self.text.op("udiv", number, by)
        remainder = self.text.op("sub nsw", number, self.text.op("mul nsw", quotient, by))
        limits = self.bounds(x)
        highest = None if limits is None else limits[1] // size
        return self.place_of(quotient, None if highest is None else 0, highest), self.place_of(remainder, 0, size - 1)

    def clamped(self, x: Index, size: int) -> tuple[Index, Value | None]:
        """The index held inside 0 … size − 1, and whether it was; None where it surely is."""
        self.opaque.update(name for name, _ in x.terms)
        if self.within(x, size):
            return x, None
        t, number = self.text, self.integer(x)
        last, first = (const(end, "i64", number.lanes) for end in (size - 1, 0))
        # As unsigned numbers the negative ones are larger than every size.
        inside = t.compare("ule", number, last)
        return self.place_of(t.call("smax", t.call("smin", number, last), first), 0, size - 1), inside

    def either(self, condition: Value | None, x: Value, y: Value) -> Value:
        if condition is None:
            return x
        lanes = max(condition.lanes, x.lanes, y.lanes)
        return self.text.select(*(self.text.splat(v, lanes) for v in (condition, x, y)))

    def both(self, x: Value | None, y: Value | None) -> Value | None:
        if x is None or y is None:
            return y if x is None else x
        lanes = max(x.lanes, y.lanes)
        return self.text.op("and", self.text.splat(x, lanes), self.text.splat(y, lanes))

    # Elements

    def value(self, tensor: Tensor, at: Indices) -> Value:
        """The element of `tensor` at an index, or one for each lane."""
        key = (id(tensor), at, self.mask)
        if (result := self.known(key)) is not None:
            return result
        if id(tensor) in self.places and id(tensor) not in self.making:
            result = self.load(tensor, at)
        elif tensor.has_value:
            result = self.number(tensor.array[(0,) * tensor.ndim], tensor.dtype)
        else:
            node = self.producers[id(tensor)]
            result = node.record.lower["element"](self, node, at)
        self.scopes[-1][key] = result
        return result

    def address(self, tensor: Tensor, at: Indices) -> tuple[Value, Index]:
        place = self.places[id(tensor)]
        offset = self.total(at, place.strides).shifted(place.offset)
        self.accesses.append(offset)
        return self.slot(place.key), offset

    def load(self, tensor: Tensor, at: Indices) -> Value:
        pointer, offset = self.address(tensor, at)
        t, kind = self.text, self.places[id(tensor)].kind(tensor.dtype)
        base = t.at(pointer, self.scalar(offset), kind)
        if offset.vector is None and offset.lane in (0, 1):
            lanes = self.lanes if offset.lane else 1
            return t.load(base, kind, lanes, self.mask if offset.lane else None)
        return t.gather(base, self.spread(offset), kind, self.mask)  # type: ignore[arg-type]

    def store(self, tensor: Tensor, at: Indices, x: Value) -> None:
        pointer, offset = self.address(tensor, at)
        t, kind = self.text, self.places[id(tensor)].kind(tensor.dtype)
        base = t.at(pointer, self.scalar(offset), kind)
        part = self.spread(offset)
        if part is None:
            t.store(x, base, kind=kind)
        elif offset.lane == 1 and offset.vector is None:
            t.store(t.splat(x, self.lanes), base, self.mask, kind)
        else:
            t.scatter(t.splat(x, self.lanes), base, part, self.mask, kind)

    def function(self, node: Node, inputs: Sequence[Value]) -> Value:
        """A pointwise operator on numbers that may be one for all lanes or one for each."""
        lanes = max(x.lanes for x in inputs)
        spread = [self.text.splat(x, lanes) for x in inputs]
        dtypes = tuple(x.dtype for x in node.inputs)
        return emit(node.name, self.text, spread, dtypes, node.outputs[0].dtype, node.attrs)


Element = Callable[[Lowering, Node, Indices], Value]
