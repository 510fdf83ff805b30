"""The form of an error."""

import copy
import pickle
from types import SimpleNamespace

import pytest

from juanji import errors, recording


def test_the_contract():
    error = errors.ShapeError("conv: no", received="(1, 2)", rule="a rule", fix="a fix", at="features.3 (Conv2d)")
    assert str(error).splitlines() == [
        "conv: no",
        "  at        features.3 (Conv2d)",
        "  received  (1, 2)",
        "  rule      a rule",
        "  fix       a fix",
    ]
    assert error.args == ("conv: no",)
    assert str(errors.JuanjiError("short")) == "short"
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == str(copy.copy(error))


@pytest.mark.parametrize(
    ("error", "standard"),
    [
        (errors.ShapeError, ValueError),
        (errors.DTypeError, TypeError),
        (errors.ArgumentError, ValueError),
        (errors.UnknownNameError, KeyError),
        (errors.TraceError, TypeError),
        (errors.NonFiniteError, ArithmeticError),
        (errors.DataError, ValueError),
        (errors.WeightsError, ValueError),
    ],
)
def test_standard_classes_catch_them(error, standard):
    with pytest.raises(standard):
        raise error("what happened")
    assert "what happened" in str(error("what happened", fix="this"))


def test_the_innermost_place_wins():
    outer, inner = (
        recording.scope(name, SimpleNamespace(label=label))
        for name, label in [("features", "Outer"), ("features.3", "Inner")]
    )
    with pytest.raises(errors.ShapeError) as caught, outer, inner:
        raise errors.ShapeError("no")
    assert caught.value.at == "features.3 (Inner)"
    assert recording.path() == ""


def test_describe():
    assert errors.describe((4, 2, 28, 64), "NHWC") == "(N=4, H=2, W=28, C=64)"
    assert errors.describe((4, 2), "NHWC") == "(4, 2)"
