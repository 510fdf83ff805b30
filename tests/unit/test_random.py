"""Philox against the known answers of its authors' library Random123, and what is drawn from it."""

import numpy as np
import pytest

from juanji import random

ZEROS = [0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
ONES = [0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
PI = (
    [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
    [0xA4093822, 0x299F31D0],
    [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
)


@pytest.mark.parametrize(("counter", "key", "answer"), [ZEROS, ONES, PI])
def test_known_answers(counter, key, answer):
    key = np.array(key, np.uint32)
    words = random.philox(np.array(counter, np.uint32)[:, None], key)
    assert words.dtype == np.uint32
    assert words[:, 0].tolist() == answer
    assert random.philox(np.array([ZEROS[0], counter], np.uint32).T, key)[:, 1].tolist() == answer


def test_key_is_left_alone():
    state = random.state(1)
    before = state.copy()
    random.bits(state, 5)
    assert (state == before).all()


def test_states_differ_by_seed_path_and_step():
    states = [random.state(*args) for args in [(0,), (1,), (0, "a"), (0, "b"), (0, "", 1), (10,), (1, "0")]]
    assert all(state.shape == (3,) and state.dtype == np.uint32 for state in states)
    draws = {random.bits(state, 4).tobytes() for state in states}
    assert len(draws) == len(states)


def test_a_longer_draw_begins_like_a_shorter_one():
    state = random.state(3, "dropout", 7)
    longer = random.bits(state, 103)
    for size in (0, 1, 4, 5, 102):
        assert (random.bits(state, size) == longer[:size]).all()
    assert random.uniform(state, ()).shape == ()


def test_same_numbers_on_every_machine():
    assert random.bits(random.state(0), 4).tolist() == [0xD8FA6C6E, 0x513EF8DA, 0xB0FBD365, 0x1294DE70]


def test_uniform():
    state = random.state(2)
    single, double = (random.uniform(state, (200, 500), dtype) for dtype in ("float32", "float64"))
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert (single == double).all()
    assert single.min() >= 0
    assert single.max() < 1
    assert (single * 2**24 % 1 == 0).all()
    counts = np.histogram(double, 20, (0, 1))[0]
    assert abs(counts - 5000).max() < 5 * np.sqrt(5000)
    assert abs(np.corrcoef(double.reshape(-1)[1:], double.reshape(-1)[:-1])[0, 1]) < 0.01


def test_normal():
    x = random.normal(random.state(4), (301, 333), "float64")
    assert x.shape == (301, 333)
    assert np.isfinite(x).all()
    assert abs(x.mean()) < 0.015
    assert abs(x.std() - 1) < 0.01
    assert abs((x**3).mean()) < 0.05
    assert abs((x**4).mean() - 3) < 0.1
    assert random.normal(random.state(4), (), "float32").dtype == np.float32


def test_permutation():
    order = random.permutation(random.state(5), 1000)
    assert sorted(order) == list(range(1000))
    assert list(order) != list(range(1000))
    assert random.permutation(random.state(5), 0).shape == (0,)


def test_rows_are_those_of_the_whole_table():
    state = random.state(5, "rows", 3)
    whole = random.uniform(state, (50, 12))
    for rows in ([], [0], [49, 3, 3, 17]):
        assert (random.uniform_rows(state, np.array(rows, np.int64), 12) == whole[rows]).all()
    far = random.uniform_rows(state, np.array([2**40, 2**40 + 2**32, 1]), 8)
    assert len({row.tobytes() for row in far}) == 3
    assert (far[2] == random.uniform(state, (2, 8))[1]).all()
