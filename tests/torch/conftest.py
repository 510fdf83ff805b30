"""Skips this folder, with the reason in pytest's summary, where PyTorch cannot be imported."""

from pathlib import Path

import numpy as np
import pytest

try:
    from torch import __version__  # noqa: F401  (a name: a bare folder called torch would import too)
except (ImportError, OSError) as error:
    _missing = f"tests/torch compares with PyTorch, which cannot be imported here ({error})"
else:
    _missing = ""


class _SkippedModule(pytest.Module):
    def collect(self):
        pytest.skip(_missing)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _SkippedModule.from_parent(parent, path=module_path) if _missing else None


@pytest.fixture
def compare():
    """`compare(ours, theirs, *arrays)`: the same function of the same arrays in juanji and PyTorch.

    Shape, dtype, value, and the gradient by every floating array along a random cotangent have to agree to
    `tolerance`, absolute and relative. `theirs` gets torch tensors; arrays of whole numbers stay constant.
    """
    import torch

    import juanji as jj

    def differentiated(function, arrays, places):
        def of_places(*floating):
            full = list(arrays)
            for place, x in zip(places, floating, strict=True):
                full[place] = x
            return function(*full)

        return of_places

    def check(ours, theirs, *arrays, tolerance=1e-9, seed=0):
        arrays = [np.asarray(array) for array in arrays]
        places = [i for i, array in enumerate(arrays) if array.dtype.kind == "f"]
        inputs = [torch.tensor(array, requires_grad=i in places) for i, array in enumerate(arrays)]
        expected = theirs(*inputs)
        y, pull = jj.vjp(differentiated(ours, arrays, places), *(arrays[i] for i in places))
        assert (y.shape, str(y.dtype)) == (tuple(expected.shape), str(expected.dtype).removeprefix("torch."))
        cotangent = np.random.default_rng(seed).normal(size=y.shape).astype(y.dtype)
        leaves = [inputs[i] for i in places]
        gradients = torch.autograd.grad(expected, leaves, torch.tensor(cotangent), allow_unused=True)
        named = [("value", y, expected.detach())]
        for i, mine, theirs_ in zip(places, pull(jj.Tensor(cotangent)), gradients, strict=True):
            named.append((f"gradient {i}", mine, torch.zeros_like(inputs[i]) if theirs_ is None else theirs_))
        for what, mine, theirs_ in named:
            np.testing.assert_allclose(mine, theirs_.numpy(), tolerance, tolerance, err_msg=what)

    return check
