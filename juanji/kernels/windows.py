"""What one element of a pooled, unfolded or folded image is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

from juanji.graph import PRIMITIVES, Node
from juanji.kernels.elements import beats, dense, held, lowers, lowest, unravelled, wide, zero
from juanji.kernels.lowering import Index, Indices, Lowering
from juanji.kernels.text import KINDS, Value, const
from juanji.ops.convspec import ConvSpec

UNROLLED = 16


def taps(code: Lowering, spec: ConvSpec, body: Callable[[Indices], None]) -> None:
    """`body(tap)` for every tap of a window, one after the other where they are few, else in loops."""
    if spec.taps <= UNROLLED:
        for tap in itertools.product(*map(range, spec.kernel)):
            body(tuple(map(Index, tap)))
        return

    def level(done: Indices) -> None:
        axis = len(done)
        if axis == spec.rank:
            body(done)
        else:
            code.loop(0, spec.kernel[axis], spec.kernel[axis], lambda k: level((*done, k)))

    level(())


def seen(code: Lowering, spec: ConvSpec, y: Indices, tap: Indices) -> tuple[Indices, Value | None]:
    """Where tap k of window y lies in the input, held inside it, and whether it was."""
    places, condition = [], None
    for axis in range(spec.rank):
        place = code.plus(code.times(y[axis], spec.stride[axis]), code.times(tap[axis], spec.dilation[axis]))
        place, inside = code.clamped(place.shifted(-spec.low[axis]), spec.input[axis])
        places.append(place)
        condition = code.both(condition, inside)
    return tuple(places), condition


@lowers("window_argmax")
def window_argmax(code: Lowering, node: Node, at: Indices) -> Value:
    place, kind = search(code, node, at)[1], KINDS[node.outputs[0].dtype.name]
    return place if place.kind == kind else code.text.convert("sext", place, kind)


def search(code: Lowering, node: Node, at: Indices) -> tuple[Value, Value]:
    """The largest element of a window and its place in the image."""
    if (found := code.known(key := ("search", id(node), at, code.mask))) is not None:
        return found
    (x,) = node.inputs
    spec, t, lanes = node.attrs["spec"], code.text, code.lanes
    best = t.variable(t.splat(lowest(x.dtype), lanes))
    place = t.variable(const(-1, "i32", lanes))

    def look(tap: Indices) -> None:
        where, inside = seen(code, spec, at[1:-1], tap)
        here = t.splat(code.value(x, (at[0], *where, at[-1])), lanes)
        number = t.splat(t.convert("trunc", code.integer(code.total(where, dense(spec.input))), "i32"), lanes)
        if inside is None and all(k == Index() for k in tap) and spec.taps <= UNROLLED:
            t.set(best, here)
            t.set(place, number)
            return
        wins = beats(code, here, t.get(best), x.dtype.kind == "u")
        if inside is not None or spec.taps > UNROLLED:
            # The first element inside is taken even if it is as small as can be.
            wins = t.op("or", wins, t.compare("slt", t.get(place), const(0, "i32", lanes)))
        wins = wins if inside is None else t.op("and", wins, t.splat(inside, lanes))
        t.set(best, t.select(wins, here, t.get(best)))
        t.set(place, t.select(wins, number, t.get(place)))

    taps(code, spec, look)
    found = t.get(best), t.get(place)
    code.scopes[-1][key] = found
    return found


def searches(node: Node, producers: Mapping[int, Node]) -> Node | None:
    """The search for the largest elements that a gather takes, where it is one of the same images."""
    x, places = node.inputs
    source = producers.get(id(places))
    return source if source is not None and source.name == "window_argmax" and source.inputs[0] is x else None


@lowers("window_gather")
def window_gather(code: Lowering, node: Node, at: Indices) -> Value:
    x, places = node.inputs
    source = searches(node, code.producers)
    if source is not None and (id(places) not in code.places or id(places) in code.making):
        return search(code, source, at)[0]
    number = held(code, wide(code, places, code.value(places, at)), math.prod(x.shape[1:-1]))
    return code.value(x, (at[0], *unravelled(code, number, x.shape[1:-1]), at[-1]))


def covering(code: Lowering, spec: ConvSpec, x: Indices) -> Iterator[tuple[Indices, Indices, Value | None]]:
    """The windows that may cover an input element, held inside the output: (window, offset in it, whether it is one).

    The offset is in elements; the caller asks whether a tap stands there.
    """
    skipped = [
        max(0, -(before // s)) for before, s in zip(spec.low, spec.stride, strict=True)
    ]  # where inputs are cut off
    starts = [
        code.divmod(i.shifted(before + skip * s), s)
        for i, before, s, skip in zip(x, spec.low, spec.stride, skipped, strict=True)
    ]
    counts = [-(-span // s) for span, s in zip(spec.span, spec.stride, strict=True)]
    for back in itertools.product(*map(range, counts)):
        windows, offsets, condition = [], [], None
        for axis, (last, rest) in enumerate(starts):
            window, inside = code.clamped(last.shifted(-back[axis] - skipped[axis]), spec.output[axis])
            windows.append(window)
            offsets.append(rest.shifted(back[axis] * spec.stride[axis]))
            condition = code.both(condition, inside)
        yield tuple(windows), tuple(offsets), condition


def searched(node: Node, producers: Mapping[int, Node]) -> ConvSpec | None:
    """The windows in which the places of a scatter are those of the largest elements, where that is known."""
    source = producers.get(id(node.inputs[1]))
    return source.attrs["spec"] if source is not None and source.name == "window_argmax" else None


PRIMITIVES["window_scatter"].lower["known"] = searched


@lowers("window_scatter")
def window_scatter(code: Lowering, node: Node, at: Indices) -> Value:
    """The gradient of max pooling: what every window says whose largest element this is."""
    g, places = node.inputs
    spec, t = searched(node, code.producers), code.text
    if spec is None:
        raise LookupError("window_scatter: nothing is known of these windows")
    here = code.integer(code.total(at[1:-1], dense(spec.input)))
    total = None
    for window, _, inside in covering(code, spec, at[1:-1]):
        index = (at[0], *window, at[-1])
        chosen = code.value(places, index)
        here = here if here.kind == chosen.kind else t.convert("trunc", here, chosen.kind)
        lanes = max(chosen.lanes, here.lanes)
        hit = t.compare("eq", t.splat(chosen, lanes), t.splat(here, lanes))
        share = code.either(code.both(inside, hit), code.value(g, index), zero(g))
        total = share if total is None else added(code, total, share)
    return zero(g) if total is None else total


def added(code: Lowering, x: Value, y: Value) -> Value:
    lanes = max(x.lanes, y.lanes)
    return code.text.combine("add", code.text.splat(x, lanes), code.text.splat(y, lanes))


def tapped(code: Lowering, spec: ConvSpec, offsets: Indices, inside: Value | None) -> tuple[Indices, Value | None]:
    """Which tap stands at an offset in a window, held among the taps, and whether one does."""
    numbers = []
    for offset, kernel, dilation in zip(offsets, spec.kernel, spec.dilation, strict=True):
        number, rest = code.divmod(offset, dilation)
        if rest != Index():
            value = code.integer(rest)
            inside = code.both(inside, code.text.compare("eq", value, const(0, "i64", value.lanes)))
        number, among = code.clamped(number, kernel)
        inside = code.both(inside, among)
        numbers.append(number)
    return tuple(numbers), inside


@lowers("window_spread", "fold")
def spread(code: Lowering, node: Node, at: Indices) -> Value:
    """The sum over all windows that cover this element: of what they say, or of what they say for this tap."""
    (g,) = node.inputs
    spec, total = node.attrs["spec"], None
    for window, offsets, inside in covering(code, spec, at[1:-1]):
        tap, inside = tapped(code, spec, offsets, inside)
        index = (at[0], *window, at[-1], *(tap if node.name == "fold" else ()))
        share = code.either(inside, code.value(g, index), zero(g))
        total = share if total is None else added(code, total, share)
    return zero(g) if total is None else total


@lowers("window_sum")
def window_sum(code: Lowering, node: Node, at: Indices) -> Value:
    (x,) = node.inputs
    spec, t = node.attrs["spec"], code.text
    total = t.variable(t.splat(zero(x), code.lanes))

    def look(tap: Indices) -> None:
        where, inside = seen(code, spec, at[1:-1], tap)
        here = code.either(inside, code.value(x, (at[0], *where, at[-1])), zero(x))
        t.set(total, added(code, t.get(total), here))

    taps(code, spec, look)
    return t.get(total)


@lowers("unfold")
def unfold(code: Lowering, node: Node, at: Indices) -> Value:
    (x,) = node.inputs
    spec = node.attrs["spec"]
    where, inside = seen(code, spec, at[1 : spec.rank + 1], at[spec.rank + 2 :])
    return code.either(inside, code.value(x, (at[0], *where, at[spec.rank + 1])), zero(x))
