"""The error contract: what happened, what was received, the rule, how to fix it, and where in the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class JuanjiError(Exception):
    """Base of every error juanji raises on purpose.

    Its text is a headline followed by the lines that are known::

        conv: the kernel does not fit the input
          at        features.3 (Conv2d(64, 128, 3))
          received  input (N=4, H=2, W=28, C=64), kernel (3, 3), padding 0
          rule      out = ⌊(H + 2·padding − dilation·(k − 1) − 1) / stride⌋ + 1
          fix       padding=1 keeps the size

    `at` is filled in by the innermost layer the error passes through.
    """

    def __init__(self, what: str, *, received: str = "", rule: str = "", fix: str = "", at: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.at = at
        self.received = received
        self.rule = rule
        self.fix = fix

    @property
    def brief(self) -> str:
        """The headline and what was received, in one line."""
        return f"{self.what}: {self.received}" if self.received else self.what

    def __str__(self) -> str:
        lines = [("at", self.at), ("received", self.received), ("rule", self.rule), ("fix", self.fix)]
        return "\n".join([self.what, *(f"  {label:<9} {text}" for label, text in lines if text)])


class ShapeError(JuanjiError, ValueError):
    """Shapes, sizes or ranks that do not fit together."""


class DTypeError(JuanjiError, TypeError):
    """Element types that do not fit together, or that an operator does not take."""


class ArgumentError(JuanjiError, ValueError):
    """An option outside its range."""


class UnknownNameError(JuanjiError, KeyError):
    """A name that no registry holds; the message gives the nearest ones."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a `name` that is not among the `known` ones: `unknown_name("model", "lenet", models.list())`."""
    import difflib

    names = sorted(known)
    nearest = difflib.get_close_matches(str(name), names, n=3, cutoff=0.4)
    return UnknownNameError(
        f"there is no {what} named {name!r}",
        rule="one of " + ", ".join(names),
        fix=f"did you mean {' or '.join(map(repr, nearest))}?" if nearest else "",
    )


class TraceError(JuanjiError, TypeError):
    """A value was asked of a tensor that has none, because its graph is only being traced."""


class NonFiniteError(JuanjiError, ArithmeticError):
    """A loss or gradient became NaN or infinite."""


class DataError(JuanjiError, ValueError):
    """Data from outside (an image, a folder, a label) cannot be used."""


class WeightsError(JuanjiError, ValueError):
    """A weight file is damaged, foreign, or does not fit the model."""


def describe(shape: Sequence[int], letters: str = "") -> str:
    """`shape` as a tuple with axis letters: `describe((4, 2, 28, 64), "NHWC")` is `(N=4, H=2, W=28, C=64)`."""
    if len(letters) != len(shape):
        return str(tuple(shape))
    return "(" + ", ".join(f"{letter}={size}" for letter, size in zip(letters, shape, strict=True)) + ")"
