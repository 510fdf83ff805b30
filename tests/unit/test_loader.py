"""The loader: the same batches whatever the threads, and none of these left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juanji.data import PRESETS, Augment, Images, Jitter, Loader, Preprocessing, batches
from juanji.data.loader import number_of_batches
from juanji.errors import ArgumentError, DataError, ShapeError, UnknownNameError

RNG = np.random.default_rng(7)


def some(n=23, shape=(9, 8, 3), seed=0):
    return Images(np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8), np.arange(n) % 5)


PLAIN = Preprocessing((9, 8), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
SMALLER = Preprocessing((7, 6), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
EVERYTHING = Augment.of("strong,rotation=20,hue=0.1,brightness=0.3,vertical_flip=true,jitter.turn=9")


def together(loader):
    xs, ys = zip(*loader, strict=True)
    return np.concatenate(xs), np.concatenate(ys)


@pytest.mark.parametrize("change", [*PRESETS.values(), EVERYTHING], ids=[*PRESETS, "everything"])
def test_batches_depend_on_neither_threads_nor_start_nor_size(change):
    options = {"seed": 3, "epoch": 2, "change": change, "preprocessing": SMALLER, "classes": 5}
    whole_x, whole_y = together(batches(some(), 23, threads=1, **options))
    assert (whole_x.shape, whole_x.dtype) == ((23, 7, 6, 3), np.float32)
    for size, threads, start in [(4, 1, 0), (4, 4, 0), (5, 2, 3), (7, 3, 1)]:
        x, y = together(batches(some(), size, threads=threads, start=start, **options))
        assert np.array_equal(x, whole_x[size * start :])
        assert np.array_equal(y, whole_y[size * start :])


@given(st.integers(1, 30), st.integers(1, 8), st.data())
@settings(deadline=None, max_examples=30)
def test_any_start_gives_the_rest(n, size, data):
    images = Images(np.zeros((n, 1, 1, 1), np.float32), np.arange(n))
    start = data.draw(st.integers(0, -(-n // size)))
    whole = [y.tolist() for _, y in batches(images, size, seed=1)]
    assert [y.tolist() for _, y in batches(images, size, seed=1, start=start)] == whole[start:]


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 4))
@settings(deadline=None, max_examples=30)
def test_few_images_that_are_left_over_make_no_batch(n, size, fewest):
    images = Images(np.zeros((n, 1, 1, 1), np.float32), np.arange(n))
    whole = [len(y) for _, y in batches(images, size)]
    kept = [len(y) for _, y in batches(images, size, fewest=fewest)]
    assert kept == (whole[:1] + [count for count in whole[1:] if count >= min(fewest, size)])
    assert len(kept) == number_of_batches(n, size, fewest)


def test_preprocessing_is_folded_in_to_the_same_bits():
    images = some()
    whole = images.read()
    for _ in range(2):  # and nothing is done to what was read
        x, y = together(batches(images, 6, shuffle=False, preprocessing=PLAIN))
        assert np.array_equal(x, PLAIN(whole))
        assert np.array_equal(y, images.y)
    floats = Images(whole.copy(), images.y)
    assert np.array_equal(together(batches(floats, 6, shuffle=False, preprocessing=PLAIN))[0], PLAIN(whole))
    assert np.array_equal(floats.x, whole)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_what_pixels_give_may_be_their_own_memory(dtype):
    whole = (RNG.random((6, 9, 8, 3)) * (255 if dtype is np.uint8 else 1)).astype(dtype)

    class Mapped:
        shape, dtype = whole.shape, whole.dtype

        def __getitem__(self, chosen):
            return whole

    before = whole.copy()
    x, _ = next(batches(Images(Mapped(), np.arange(6)), 6, change=Augment(erasing=1.0), preprocessing=PLAIN))
    assert not np.array_equal(x, PLAIN(Images(before, np.arange(6)).read()))
    assert np.array_equal(whole, before)


def test_what_a_function_returns_is_left_alone():
    images, template = some(), np.full((23, 9, 8, 3), 0.5, np.float64)
    change = lambda x, draws: template[: len(x), ::-1]  # noqa: E731
    x, _ = together(batches(images, 23, change=change, preprocessing=PLAIN))
    assert x.dtype == np.float32
    assert np.array_equal(x, PLAIN(template.astype(np.float32)))
    assert (template == 0.5).all()


def test_a_jitter_alone_has_the_bits_it_always_had():
    images, jitter = some(), Jitter(0.1, 12, 0.12, 0.12)
    x, _ = together(batches(images, 5, seed=4, epoch=7, shuffle=False, change=jitter))
    from juanji import random

    draws = random.uniform(random.state(4, "data/change", 7), (23, 8))
    assert np.array_equal(x, jitter(images.read(), draws))
    same = together(batches(images, 9, seed=4, epoch=7, shuffle=False, change=Augment(jitter=jitter)))
    assert np.array_equal(x, same[0])


# Threads


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("juanji-loader")]


def none_left(seconds=5.0):
    end = time.monotonic() + seconds
    while workers() and time.monotonic() < end:
        time.sleep(0.01)
    return not workers()


def test_no_more_than_a_few_batches_are_prepared_ahead():
    prepared = []
    loader = Loader(lambda part: (prepared.append(part), np.zeros(1)), map(slice, range(1000)), threads=2)
    assert not prepared
    for taken in range(1, 6):
        next(loader)
        time.sleep(0.01)
        assert taken <= len(prepared) <= taken + loader.ahead
    loader.close()
    assert not workers()
    assert len(prepared) < 12
    assert next(loader, None) is None


def test_memory_is_that_of_a_few_batches_over_all_epochs():
    images = some(96, (32, 32, 3))
    batch = 16 * 32 * 32 * 3 * 4
    peaks = []
    tracemalloc.start()
    try:
        for epoch in range(5):
            tracemalloc.reset_peak()
            for x, _ in batches(images, 16, epoch=epoch, threads=2, change=Augment.of("light,cutmix=1"), classes=5):
                assert x.nbytes == batch
            peaks.append(tracemalloc.get_traced_memory()[1])
        left = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # Three ahead, two of them being made with what they are made from, and the consumer's.
    assert max(peaks) < 10 * batch
    assert max(peaks[3:]) < 1.3 * max(peaks[1:3])
    assert left < 2 * batch


def test_threads_end_with_the_last_batch():
    assert len(list(batches(some(), 4, threads=3))) == 6
    assert not workers()


def test_threads_end_where_a_loop_is_left():
    for _ in batches(some(), 1, threads=3):
        assert workers()
        break
    assert none_left()


def test_batches_come_in_order_however_long_each_takes():
    def prepare(part):
        time.sleep(0.002 * (5 - part.stop % 5))
        return np.array(part.stop), np.zeros(1)

    assert [int(x) for x, _ in Loader(prepare, map(slice, range(20)), threads=4)] == list(range(20))


def test_an_exception_arrives_in_its_turn():
    class Damaged:
        shape, dtype = (8, 2, 2, 1), np.dtype(np.uint8)

        def __getitem__(self, chosen):
            if 5 in chosen:
                raise DataError("5.png: the image cannot be read")
            return np.zeros((len(chosen), 2, 2, 1), np.uint8)

    loader = batches(Images(Damaged(), np.arange(8)), 2, shuffle=False, threads=2)
    assert [y.tolist() for _, y in (next(loader), next(loader))] == [[0, 1], [2, 3]]
    with pytest.raises(DataError, match=r"5\.png: the image cannot be read"):
        next(loader)
    assert not workers()
    assert next(loader, None) is None


def test_waiting_is_counted():
    def slow(part):
        time.sleep(0.03)
        return np.zeros(1), np.zeros(1)

    loader = Loader(slow, map(slice, range(3)), threads=1)
    begin = time.perf_counter()
    list(loader)
    assert 0.08 < loader.waited <= time.perf_counter() - begin
    ready = Loader(lambda part: (np.zeros(1), np.zeros(1)), map(slice, range(3)), threads=1)
    next(ready)
    ready.pending[-1].result()
    before = ready.waited
    time.sleep(0.2)  # the consumer's own time is none of waiting
    next(ready)
    assert ready.waited - before < 0.15


LEAVING = """
import sys, time
import numpy as np
from juanji.data import Images, batches
images = Images(np.zeros((100000, 8, 8, 3), np.uint8), np.zeros(100000, np.int64))
loader = batches(images, 1, threads=3)
next(loader)
print("begun", flush=True)
if sys.argv[1] == "left":
    sys.exit(0)
for x, y in loader:
    time.sleep(0.01)
"""


def start_python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_program_may_end_in_the_middle():
    program = start_python(LEAVING, "left")
    output, errors = program.communicate(timeout=30)
    assert (program.returncode, output, errors) == (0, "begun\n", "")


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT for a process of its own")
def test_ctrl_c_ends_a_program():
    program = start_python(LEAVING, "stays")
    assert program.stdout.readline() == "begun\n"
    time.sleep(0.1)
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate(timeout=30)
    assert program.returncode == -signal.SIGINT
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


# Errors


def test_bad_starts_and_threads():
    with pytest.raises(ArgumentError, match=r"batches: bad start[\s\S]*start=4[\s\S]*0 to 3, the number of batches"):
        batches(some(12), 4, start=4)
    with pytest.raises(ArgumentError, match=r"batches: bad start[\s\S]*start=-1"):
        batches(some(12), 4, start=-1)
    with pytest.raises(ArgumentError, match=r"batches: bad threads[\s\S]*at least 1"):
        batches(some(), 4, threads=0)


def test_mixing_wants_the_number_of_classes():
    with pytest.raises(ArgumentError, match=r"number of classes must be known[\s\S]*mixup=0\.2[\s\S]*classes=len"):
        batches(some(), 4, change=Augment(mixup=0.2))
    images = some()
    most = int(images.y.max())
    with pytest.raises(
        DataError, match=rf"labels without a class\n  received  label {most}\n  rule .* 0 to {most - 1}"
    ):
        batches(images, 4, change=Augment(mixup=0.2), classes=most)


def test_a_change_by_its_name():
    x, named = (together(batches(some(), 4, change=change))[0] for change in (PRESETS["light"], "light"))
    np.testing.assert_array_equal(x, named)
    with pytest.raises(UnknownNameError, match="no augmentation named 'lite'"):
        batches(some(), 4, change="lite")


def test_images_that_a_change_cannot_be_made_to():
    with pytest.raises(ShapeError, match=r"smaller than what is cut[\s\S]*9×8 pixels, crop=shift[\s\S]*at least 12×12"):
        batches(some(), 4, change=PRESETS["light"], preprocessing=Preprocessing((12, 12), 3, (0.0,) * 3, (1.0,) * 3))
    with pytest.raises(ShapeError, match=r"only grey and RGB images[\s\S]*4 channels, hue=0\.1[\s\S]*1 channel or 3"):
        batches(some(shape=(4, 4, 4)), 4, change=Augment(hue=0.1))
    with pytest.raises(
        ShapeError, match=r"preprocessing is that of other images[\s\S]*1 channels, a preprocessing of 3"
    ):
        batches(some(shape=(9, 8, 1)), 4, preprocessing=PLAIN)
