"""Checks of what a user gives: numbers in their range, choices, sizes for each axis, names with their shapes.

Each takes the name of who asks and raises by the contract of `errors.py`.
"""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from juanji.errors import ArgumentError, JuanjiError, unknown_name

FEW = 4  # names of a kind that an error lists


def is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__index__")


def is_count(value: Any) -> bool:
    """Whether `value` is a whole number of at least 1."""
    return is_whole(value) and operator.index(value) >= 1


def counts(name: str, **arguments: Any) -> None:
    """Raise ArgumentError unless every argument is a whole number of at least 1."""
    for argument, value in arguments.items():
        if not is_count(value):
            raise bad(name, argument, value, "a whole number of at least 1", number_meant(value, is_count))


def whole(name: str, **arguments: Any) -> None:
    """Raise ArgumentError unless every argument is a whole number."""
    for argument, value in arguments.items():
        if not is_whole(value):
            raise bad(name, argument, value, "a whole number", number_meant(value, is_whole))


def positive(name: str, **arguments: Any) -> None:
    """Raise ArgumentError unless every argument is a finite number above 0."""
    numbers(name, arguments, lambda x: 0 < x < math.inf, "above 0")


def nonnegative(name: str, **arguments: Any) -> None:
    """Raise ArgumentError unless every argument is a finite number, 0 or more."""
    numbers(name, arguments, lambda x: 0 <= x < math.inf, "0 or more")


def share(name: str, **arguments: Any) -> None:
    """Raise ArgumentError unless every argument is a number from 0 to 1."""
    numbers(name, arguments, lambda x: 0 <= x <= 1, "from 0 to 1", percent=True)


def fraction(name: str, **arguments: Any) -> None:
    """Raise ArgumentError unless every argument lies in [0, 1)."""
    numbers(name, arguments, lambda x: 0 <= x < 1, "in [0, 1)", percent=True)


def numbers(
    name: str, arguments: Mapping[str, Any], holds: Callable[[float], bool], rule: str, percent: bool = False
) -> None:
    """Raise ArgumentError unless every argument is a number for which the rule `holds`.

    percent  whether larger ones than 1 may have been meant as such
    """
    for argument, value in arguments.items():
        try:
            kept = not isinstance(value, str) and holds(float(value))
        except (TypeError, ValueError):
            kept = False
        if not kept:
            raise bad(name, argument, value, rule, number_meant(value, holds, percent))


def number_meant(value: Any, holds: Callable[[Any], bool], percent: bool = False) -> Any:
    """The number that a text, or a float for a whole number, stands for, if the rule `holds` for it; else None."""
    with contextlib.suppress(TypeError, ValueError):
        number = float(value) / (100 if percent and float(value) > 1 else 1)
        meant = int(number) if number.is_integer() else number
        return meant if holds(meant) else None
    return None


def bad(name: str, argument: str, value: Any, rule: str, meant: Any = None) -> ArgumentError:
    """The error for a value that breaks the rule. What may have been meant is the fix."""
    fix = "" if meant is None else f"{argument}={meant!r}"
    return ArgumentError(f"{name}: bad {argument}", received=f"{argument}={value!r}", rule=rule, fix=fix)


TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def truth(name: str, argument: str, value: Any) -> bool:
    """True or False as they are. Raises ArgumentError for anything else, which `bool` would take for one of them."""
    if not isinstance(value, bool | np.bool_):
        raise bad(name, argument, value, "True or False", TRUTHS.get(str(value).lower()))
    return bool(value)


def one_of(name: str, argument: str, value: Any, choices: Collection[str]) -> str:
    """`value`, or ArgumentError, with the nearest ones, where it is none of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ArgumentError(
            f"{name}: unknown {argument}",
            received=f"{argument}={value!r}",
            rule="one of " + ", ".join(map(repr, choices)),
            fix=unknown_name(argument, value, choices).fix,
        )
    return value


def per_axis(name: str, argument: str, value: Any, count: int, *, least: int | None = None) -> tuple[int, ...]:
    """`value` as one integer an axis: an integer stands for all. Raises ArgumentError below `least`."""
    try:
        sizes = tuple(map(operator.index, value if np.ndim(value) else [value] * count))
    except (TypeError, ValueError):
        sizes = ()
    if len(sizes) != count or (least is not None and min(sizes) < least):
        at_least = "" if least is None else f" of at least {least}"
        one = sizes[0] if len(set(sizes)) == 1 else value
        meant = number_meant(one, lambda x: is_whole(x) and (least is None or x >= least))
        raise bad(name, argument, value, f"an integer{at_least}, or {count} of them", meant)
    return sizes


def dividing(name: str, groups: Any, *channels: int, received: str, what: str = "groups") -> None:
    """Raise ArgumentError, with what was `received`, unless `groups` divides every number of channels."""
    if not is_count(groups) or any(count % groups for count in channels):
        raise ArgumentError(
            f"{name}: the {what} do not divide the channels",
            received=received,
            rule=f"the channels are multiples of the {what}",
            fix=f"another number of {what}, such as 1",
        )


def same_names(
    error: type[JuanjiError],
    what: str,
    expected: Mapping[str, tuple[int, ...]],
    received: Mapping[str, tuple[int, ...]],
    *,
    misfit: Callable[[str], str] | None = None,
    fix: str | Callable[[], str] = "",
) -> None:
    """Raise `error`, headed `what`, that lists missing, unknown and misshapen names, the first few of each.

    expected, received  shapes by name
    misfit              says how what has a name on both sides differs, "" for not at all; by default in its shape
    fix                 what to do about it; a function is asked only where something is wrong
    """

    def misshapen(name: str) -> str:
        same = received[name] == expected[name]
        return "" if same else f"misshapen {name} {received[name]}, expected {expected[name]}"

    missing = [f"missing {name} {shape}" for name, shape in expected.items() if name not in received]
    unknown = [f"unknown {name} {shape}" for name, shape in received.items() if name not in expected]
    unfit = [*filter(None, map(misfit or misshapen, [name for name in expected if name in received]))]
    wrong = [*first_few(missing), *first_few(unknown), *first_few(unfit)]
    if wrong:
        rule = "the same names with the same shapes"
        raise error(what, received="; ".join(wrong), rule=rule, fix=fix if isinstance(fix, str) else fix())


def first_few(texts: Sequence[str]) -> list[str]:
    """The first few texts, which begin with the same word, and how many more there are."""
    rest = texts[FEW:]
    return [*texts[:FEW], f"and {len(rest)} more {rest[0].partition(' ')[0]}"] if rest else [*texts]
