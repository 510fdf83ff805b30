"""Checks of arguments: what is taken, what is not, and the fix where one can be told from what was given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from juanji import checks
from juanji.errors import ArgumentError


def check(function, value, *more):
    """One check of an argument `x`, whichever way it takes it."""
    by_name = function in (checks.counts, checks.whole, *RANGES)
    return function("f", **{"x": value}) if by_name else function("f", "x", value, *more)


RANGES = (checks.positive, checks.nonnegative, checks.share, checks.fraction)
CHOICES = ("large", "small")
# The check, what it is given besides, a value that it refuses, and the fix.
REFUSED = [
    (checks.counts, (), 0, ""),
    (checks.counts, (), -3, ""),
    (checks.counts, (), 2.5, ""),
    (checks.counts, (), "many", ""),
    (checks.counts, (), None, ""),
    (checks.counts, (), [2], ""),
    (checks.counts, (), float("inf"), ""),
    (checks.counts, (), 3.0, "x=3"),
    (checks.counts, (), np.float32(3), "x=3"),
    (checks.counts, (), "3", "x=3"),
    (checks.counts, (), True, "x=1"),
    (checks.whole, (), 0.5, ""),
    (checks.whole, (), "-2", "x=-2"),
    (checks.positive, (), 0, ""),
    (checks.positive, (), float("nan"), ""),
    (checks.positive, (), float("inf"), ""),
    (checks.positive, (), "0.5", "x=0.5"),
    (checks.positive, (), "-0.5", ""),
    (checks.nonnegative, (), -1e-9, ""),
    (checks.nonnegative, (), "0", "x=0"),
    (checks.share, (), -1, ""),
    (checks.share, (), 50, "x=0.5"),
    (checks.share, (), "50", "x=0.5"),
    (checks.share, (), 101, ""),
    (checks.fraction, (), 1, ""),
    (checks.fraction, (), 100, ""),
    (checks.fraction, (), 20, "x=0.2"),
    (checks.truth, (), "no", "x=False"),
    (checks.truth, (), "True", "x=True"),
    (checks.truth, (), 1, "x=True"),
    (checks.truth, (), 0, "x=False"),
    (checks.truth, (), None, ""),
    (checks.truth, (), 2, ""),
    (checks.one_of, (CHOICES,), "smal", "did you mean 'small'?"),
    (checks.one_of, (CHOICES,), 3, ""),
    (checks.per_axis, (2,), (3, 3, 3), "x=3"),
    (checks.per_axis, (2,), (3,), "x=3"),
    (checks.per_axis, (2,), (1, 2, 3), ""),
    (checks.per_axis, (2,), 3.0, "x=3"),
    (checks.per_axis, (2,), "3", "x=3"),
    (checks.per_axis, (2,), (1.5, 2), ""),
    (checks.per_axis, (2,), (), ""),
]


@pytest.mark.parametrize(("function", "more", "value", "fix"), REFUSED)
def test_refused(function, more, value, fix):
    with pytest.raises(ArgumentError) as caught:
        check(function, value, *more)
    assert str(caught.value).startswith("f: ")
    assert caught.value.received == f"x={value!r}"
    assert caught.value.rule
    assert caught.value.fix == fix


@pytest.mark.parametrize(("function", "more", "value", "fix"), [row for row in REFUSED if row[3].startswith("x=")])
def test_the_fix_is_taken(function, more, value, fix):
    check(function, eval(fix.removeprefix("x=")), *more)


def test_sizes_below_the_least():
    with pytest.raises(ArgumentError, match="an integer of at least 1, or 2 of them") as caught:
        checks.per_axis("f", "x", (0, 0), 2, least=1)
    assert caught.value.fix == ""


@given(st.integers(1, 2**40), st.integers(1, 4))
def test_taken(number, axes):
    checks.counts("f", a=number, b=np.int64(number))
    checks.whole("f", a=-number)
    assert checks.per_axis("f", "x", number, axes) == (number,) * axes
    assert checks.per_axis("f", "x", [number] * axes, axes, least=1) == (number,) * axes


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_shares(number):
    for function in RANGES:
        check(function, number)


def test_of_many_names_the_first_few_are_listed():
    expected = {f"a{i}": (i,) for i in range(9)}
    with pytest.raises(ArgumentError) as caught:
        checks.same_names(ArgumentError, "f: other names", expected, {"b": (1,), "a8": (7,)}, fix="others")
    assert caught.value.received == (
        "missing a0 (0,); missing a1 (1,); missing a2 (2,); missing a3 (3,); and 4 more missing; unknown b (1,); "
        "misshapen a8 (7,), expected (8,)"
    )
    assert caught.value.fix == "others"
    checks.same_names(ArgumentError, "f: other names", expected, dict(expected), fix=lambda: 1 / 0)
