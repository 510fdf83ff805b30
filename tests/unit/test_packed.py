"""Datasets ready for training: forms, parts, packed files, and images that cannot be read."""

import json
import os
import shutil
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from juanji.data import Form, Preprocessing, find, load, packed, split
from juanji.data.labelled import TEST, TRAIN
from juanji.data.loading import with_parts
from juanji.data.packed import Decoder, Mapped
from juanji.data.parallel import chunks
from juanji.data.split import digests
from juanji.errors import ArgumentError, DataError


@pytest.fixture(autouse=True)
def cache(own_cache):
    return own_cache / "images"


def parted(found):
    return with_parts(found, 0, lambda: digests(found.samples, False))


def noise(height=12, width=16, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8).squeeze()


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """Thirty photographs of three classes, 12 high and 16 wide."""
    for i in range(30):
        write(tmp_path / "data" / "abc"[i % 3] / f"{i:02}.png", noise(seed=i))
    return tmp_path / "data"


# Forms.


def test_what_is_only_cut_stays_sharp():
    x = noise(8, 20)
    assert np.array_equal(Form((8, 8), 3, "crop").of(x), x[:, 6:14])
    assert np.array_equal(Form((8, 7), 3, "crop").of(x), x[:, 6:13])


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_one_colour_stays_it(resize):
    x = np.full((9, 30, 3), 77, np.uint8)
    y = Form((6, 12), 3, resize).of(x)
    assert y.shape == (6, 12, 3)
    if resize == "pad":
        assert (y[1:5] == 77).all()
        assert (y[[0, 5]] == 0).all()
    else:
        assert (y == 77).all()


def test_a_crop_keeps_proportions_and_the_middle():
    """A ramp along the width: the middle stays in the middle, and its slope is that of the height's scale."""
    x = np.tile(np.linspace(0, 1, 80, dtype=np.float32)[:, None], (20, 1, 1)).reshape(20, 80, 1)
    y = Form((10, 10), 1, "crop").of(x)[..., 0]
    assert y.mean() == pytest.approx(0.5, abs=1e-3)
    assert np.allclose(np.diff(y[5])[1:-1], 2 / 79, atol=1e-4)
    stretched = Form((10, 10), 1, "stretch").of(x)[5, :, 0]
    assert np.allclose(np.diff(stretched)[1:-1], 8 / 79, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.sampled_from(["crop", "stretch", "pad"]),
    st.sampled_from([1, 3]),
)
def test_every_size_comes_to_every_form(own, size, resize, channels):
    x = np.full((*own, channels), 200, np.uint8)
    y = Form(size, channels, resize).of(x)
    assert y.shape == (*size, channels)
    assert y.max() == 200


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_forms_read_every_mode_as_read_image_does(tmp_path, mode, channels):
    from juanji.data import read_image

    image = Image.fromarray(noise(channels=1)) if mode == "I;16" else Image.fromarray(noise(channels=4), "RGBA")
    if mode == "I;16":
        image = Image.fromarray(noise(channels=1).astype(np.uint16) * 257)
    else:
        image = image.convert("RGB").convert(mode) if mode not in ("LA", "RGBA") else image.convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path)
    read = Form((12, 16), channels).read(path)
    assert read.dtype == np.uint8
    assert np.allclose(read / 255, read_image(path, channels), atol=1.6 / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright_in_forms_and_headers(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.kron(np.array([[0, 255, 255], [80, 80, 80]], np.uint8), np.ones((40, 40), np.uint8)))
    turned = {1: 0, 8: 90, 3: 180, 6: 270}
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    expected = np.asarray(image.rotate(turned[orientation], expand=True)) if orientation in turned else None
    (tmp_path / "c").mkdir()
    os.replace(tmp_path / "a.jpg", tmp_path / "c/a.jpg")
    found = find(tmp_path)
    height, width, _ = found.samples.header(0)
    assert (height, width) == ((120, 80) if orientation > 4 else (80, 120))
    if expected is not None:
        x = found.samples.read(0, Form((height, width), 1))
        assert np.abs(x[..., 0].astype(int) - expected).mean() < 3


def test_large_photographs_are_decoded_smaller(tmp_path, monkeypatch):
    """Draft decoding: nearly the same picture from an eighth of the rows and columns."""
    rows, columns = np.mgrid[0:1, 0:1:640j], np.mgrid[0:1:480j]
    picture = (127 + 60 * np.sin(9 * columns[:, None]) + 60 * np.cos(7 * rows[1])).clip(0, 255).astype(np.uint8)
    path = write(tmp_path / "x.jpg", np.stack([picture] * 3, -1), quality=95)
    drafted = Form((30, 30), 3).read(path)
    loaded = []
    monkeypatch.setattr(JpegImageFile, "draft", lambda self, mode, size: loaded.append(size))
    whole = Form((30, 30), 3).read(path)
    assert loaded == [(60, 60)]
    assert np.abs(drafted.astype(int) - whole).max() <= 6
    assert not np.array_equal(drafted, whole)


def test_forms_that_are_none():
    with pytest.raises(ArgumentError, match=r"images: bad size[\s\S]*\(0, 3\)"):
        Form((0, 3), 1)
    with pytest.raises(ArgumentError, match=r"images[\s\S]*'squeeze'[\s\S]*crop"):
        Form((3, 3), 1, "squeeze")


# Loading.


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
def test_prediction_sees_the_pixels_that_testing_saw(photos, resize):
    data = load(photos, 8, room=1.5, resize=resize)
    shown = Preprocessing.of(data.train, data.shape[:2], data.resize)
    found = parted(find(photos))
    for i, place in enumerate(np.flatnonzero(found.part == TEST)):
        name = found.samples.name(int(place))
        assert np.array_equal(shown.read(name), data.test.read([i])[0])
        with open(name, "rb") as file:
            assert np.array_equal(shown.read(file.read(), name), data.test.read([i])[0])


def test_a_folder_is_split_by_content_and_class(photos):
    data = load(photos, 8)
    assert (data.train.x.shape, data.test.x.shape) == ((24, 8, 8, 3), (6, 8, 8, 3))
    assert np.bincount(data.train.y).tolist() == [8, 8, 8]
    assert data.classes == ("a", "b", "c")
    assert data.name == str(photos)
    other = load(photos, 8, seed=1)
    assert not np.array_equal(other.test.x, data.test.x)
    # Other names and another place: the same images are held out.
    with zipfile.ZipFile(photos.parent / "x.zip", "w") as archive:
        for i, path in enumerate(sorted(photos.rglob("*.png"), reverse=True)):
            archive.write(path, f"top/{path.parent.name}/other{i}.png")
    again = load(photos.parent / "x.zip", 8)
    rows = lambda images: sorted(x.tobytes() for x in images.x[:])  # noqa: E731
    assert rows(again.test) == rows(data.test)


def test_training_images_have_room(photos):
    data = load(photos, 8, room=1.25, channels=1, resize="stretch")
    assert (data.train.x.shape, data.test.x.shape) == ((24, 10, 10, 1), (6, 8, 8, 1))
    digits = load("digits", 16, room=1.2, channels=3)
    assert (digits.train.x.shape, digits.test.x.shape) == ((1201, 20, 20, 3), (596, 16, 16, 3))


def test_without_a_size_images_keep_theirs(photos):
    assert load(photos).train.x.shape == (24, 12, 16, 3)
    write(photos / "a/other.png", noise(5, 7))
    with pytest.raises(DataError, match=r"no common size[\s\S]*5 to 12 high, 7 to 16 wide[\s\S]*size=64"):
        load(photos)


def test_images_are_grey_where_all_are(tmp_path):
    for i in range(6):
        write(tmp_path / "ab"[i % 2] / f"{i}.png", noise(channels=1, seed=i))
    assert load(tmp_path, 4).train.x.shape == (4, 4, 4, 1)
    write(tmp_path / "b/9.png", noise())
    assert load(tmp_path, 4).train.x.shape[-1] == 3


def test_parts_that_the_data_has(tmp_path):
    for i in range(12):
        part = ("train", "train", "val", "test")[i % 4]
        write(tmp_path / part / "ab"[i // 4 % 2] / f"{i}.png", noise(seed=i))
    data = load(tmp_path, 4)
    assert (len(data.train), len(data.val), len(data.test)) == (6, 3, 3)
    os.rename(tmp_path / "test", tmp_path.parent / "gone")
    data = load(tmp_path, 4)
    assert (len(data.train), data.val, len(data.test)) == (6, None, 3)
    os.rename(tmp_path / "val", tmp_path.parent / "gone too")
    data = load(tmp_path, 4)
    assert (len(data.train), data.val, len(data.test)) == (4, None, 2)


def test_a_part_for_validation_is_split_off_at_wish(photos):
    plain, data = load(photos, 8), load(photos, 8, room=1.5, validation=0.25)
    assert (len(data.train), len(data.val), len(data.test)) == (18, 6, 6)
    assert data.train.x.shape[1:3] == (12, 12)
    assert data.val.x.shape[1:3] == (8, 8)
    assert np.bincount(data.val.y).tolist() == [2, 2, 2]
    assert np.array_equal(data.test.x, plain.test.x)
    rows = {x.tobytes() for x in plain.train.x}
    assert {x.tobytes() for x in data.val.x} < rows
    for i in range(8):
        os.renames(next((photos / "a").iterdir()), photos / ("val", "train")[i % 2] / "ab"[i // 4] / f"{i}.png")
    for name in "abc":
        shutil.rmtree(photos / name, ignore_errors=True)
    assert len(load(photos, 8, validation=0.5).val or ()) == 2  # val is for testing, and half of train is held out


def test_digits_with_a_part_for_validation():
    data = load("digits", 16, room=1.25, channels=3, validation=0.1)
    assert (len(data.train), len(data.val), len(data.test)) == (1081, 120, 596)
    assert (data.train.x.shape[1:], data.val.x.shape[1:]) == ((20, 20, 3), (16, 16, 3))
    whole = load("digits", 16)
    assert {x.tobytes() for x in data.val.x[..., :1]} < {x.tobytes() for x in whole.train.x}


def test_arrays_come_as_they_are_or_in_another_form(tmp_path):
    x = np.stack([noise(seed=i) for i in range(10)])
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(10) % 2)
    data = load(tmp_path / "d.npz")
    held = parted(find(tmp_path / "d.npz")).part
    assert np.array_equal(data.train.x, x[held == TRAIN])
    form = Form((6, 6), 3)
    assert np.array_equal(load(tmp_path / "d.npz", 6).test.x, np.stack([form.of(row) for row in x[held == TEST]]))
    assert load(tmp_path / "d.npz", channels=1).train.x.shape == (8, 12, 16, 1)
    np.savez(tmp_path / "f.npz", x=(x[..., :2] / 255).astype(np.float32), y=np.arange(10) % 2)
    assert load(tmp_path / "f.npz", 6).train.x.dtype == np.float32
    with pytest.raises(DataError, match=r"f\.npz: the images cannot be brought[\s\S]*2 channels, 3 wanted"):
        load(tmp_path / "f.npz", channels=3)


def test_one_class_and_classes_without_training_images(tmp_path):
    write(tmp_path / "one/a/1.png", noise())
    with pytest.raises(DataError, match=r"there is only one class[\s\S]*a[\s\S]*two or more"):
        load(tmp_path / "one", 4)
    for name in ("train/a/1.png", "train/b/1.png", "test/c/1.png"):
        write(tmp_path / "parts" / name, noise())
    with pytest.raises(DataError, match=r"classes without an image to train on[\s\S]*received  c[\s\S]*juanji check"):
        load(tmp_path / "parts", 4)


def test_images_that_are_not_used_are_warned_of(photos):
    write(photos / "stray.png", noise())
    (photos / "a/1.HEIC").touch()
    (photos / "d").mkdir()
    expected = r"1 image in no class folder; 1 image of formats that are not read; 1 class without an image: d .*check"
    with pytest.warns(UserWarning, match=expected) as told:
        load(photos, 8)
    assert told[0].filename == __file__


def test_what_is_standardised_are_floats():
    shown = Preprocessing((4, 4), 1, (0.5,), (0.2,))
    for x, received in ((["new.jpg"], "a list"), (np.zeros((1, 4, 4, 1), np.uint8), "a ndarray of uint8")):
        with pytest.raises(
            ArgumentError, match=f"no images in 0…1\n  received  {received}\n  rule      floats [\\s\\S]*read"
        ):
            shown(x)


def test_classes_of_the_same_name_are_warned_of(tmp_path):
    rows = [f"{i}.png,{label}" for i, label in enumerate(("cat", "Cat", "dog") * 4)]
    for i in range(12):
        write(tmp_path / f"{i}.png", noise(seed=i))
    (tmp_path / "t.csv").write_text("\n".join(rows))
    with pytest.warns(UserWarning, match="differ by upper and lower case only: Cat = cat .juanji check"):
        assert load(tmp_path / "t.csv", 4).classes == ("Cat", "cat", "dog")


def test_copies_in_several_classes_or_parts_are_warned_of(tmp_path):
    image = noise()
    for name in ("train/a/1.png", "train/b/2.png", "test/b/3.png", "test/b/4.png"):
        write(tmp_path / name, image)
    for name in ("train/a/5.png", "test/a/6.png"):
        write(tmp_path / name, noise(seed=1))
    write(tmp_path / "train/a/7.png", noise(seed=2))
    expected = "copies of 1 image in several classes; copies of 1 image in several parts, which test nothing"
    with pytest.warns(UserWarning, match=expected):
        load(tmp_path, 4)


def test_bad_choices(photos):
    for options, what in [
        ({"size": 0}, "size"), ({"channels": 2}, "bad channels"), ({"room": 0.5}, "bad room"),
        ({"validation": 1}, "validation"), ({"resize": "fit"}, "crop"), ({"unreadable": "ignore"}, "refuse"),
    ]:  # fmt: skip
        with pytest.raises(ArgumentError, match=rf"load[\s\S]*{what}"):
            load(photos, **{"size": 8, **options})


def test_progress_is_told(photos):
    told = []
    load(photos, 8, progress=lambda *step: told.append(step))
    assert told[-1] == ("reading images", 6, 6)
    assert ("reading images", 24, 24) in told


# Images that cannot be read.


@pytest.fixture
def damaged(photos):
    for i in range(12):
        (photos / f"a/bad{i:02}.jpg").write_bytes(b"no image")
    return photos


@pytest.mark.parametrize("keep", [True, False])
def test_images_that_cannot_be_read_are_refused_by_name(damaged, keep):
    with pytest.raises(DataError, match=r"12 of the images cannot be read[\s\S]*juanji check") as error:
        load(damaged, 8, cache=keep)
    named = [line for line in str(error.value).splitlines() if ".jpg" in line]
    assert len(named) == 10
    assert "and 2 more" in str(error.value)


@pytest.mark.parametrize("keep", [True, False])
def test_or_they_are_passed_over(damaged, keep):
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"12 images that cannot be read, left out .juanji check"):
            data = load(damaged, 8, unreadable="skip", cache=keep)
        assert len(data.train) + len(data.test) == 30
        assert data.train.x.shape[0] == len(data.train.y)
    (damaged / "d").mkdir()
    (damaged / "d/1.png").write_bytes(b"")
    with (
        pytest.raises(DataError, match=r"classes without an image to train on[\s\S]*d"),
        pytest.warns(UserWarning, match="13 images that cannot be read"),
    ):
        load(damaged, 8, unreadable="skip", cache=keep)


# Packed files.


def files(cache):
    return {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}


def test_images_are_decoded_once(photos, cache, monkeypatch):
    first = load(photos, 8)
    before = files(cache)
    assert len(before) == 2
    monkeypatch.setattr(Form, "read", None)
    second = load(photos, 8)
    assert files(cache) == before
    assert np.array_equal(first.train.x, second.train.x)
    assert np.array_equal(first.test.y, second.test.y)


def test_what_forms_meant_before_is_not_used_any_more(photos, monkeypatch):
    load(photos, 8)
    monkeypatch.setattr("juanji.data.form.MEANING", 0)
    monkeypatch.setattr(Form, "read", lambda form, file, name: np.full(form.shape, 7, np.uint8))
    assert (np.asarray(load(photos, 8).test.x) == 7).all()


def test_other_content_and_other_choices_are_other_files(photos, cache):
    def more(**options):
        before = set(files(cache)) if cache.exists() else set()
        load(photos, **{"size": 8, **options})
        return len(set(files(cache)) - before)

    assert more() == 2
    assert more() == 0
    assert more(size=9) == 2
    assert more(room=1.5) == 1
    assert more(channels=1) == 2
    assert more(resize="pad") == 2
    assert more(seed=3) == 2
    os.utime(photos / "a/00.png", ns=(5, 5))
    assert more() == 2


@pytest.mark.parametrize("damage", ["cut", "bit", "notes", "empty", "magic"])
def test_damaged_files_are_made_again(photos, cache, damage):
    first = load(photos, 8)
    for path in cache.iterdir():
        raw = bytearray(path.read_bytes())
        if damage == "cut":
            raw = raw[: len(raw) // 2]
        elif damage == "empty":
            raw = bytearray()
        else:
            raw[{"bit": 3, "notes": -100, "magic": -1}[damage]] ^= 1
        path.write_bytes(raw)
    second = load(photos, 8)
    assert np.array_equal(first.train.x, second.train.x)
    assert all(packed.opened(path) is not None for path in cache.iterdir())


def test_an_interrupt_leaves_nothing_half_made(photos, cache):
    def stop(what, done, of):
        if what == "reading images":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(photos, 8, progress=stop)
    assert files(cache) == {}


def test_what_was_left_unfinished_is_swept_up(photos, cache):
    load(photos, 8)
    for name, age in (("old", packed.LEFT + 60), ("new", 60)):
        (cache / f"unfinished-{name}").touch()
        os.utime(cache / f"unfinished-{name}", (time.time() - age,) * 2)
    load(photos, 8)
    assert [name for name in files(cache) if "unfinished" in name] == ["unfinished-new"]


def test_large_sets_are_mapped(photos, monkeypatch):
    small = load(photos, 8)
    monkeypatch.setattr(packed, "memory", lambda: 1000)
    large = load(photos, 8)
    assert isinstance(large.train.x, Mapped)
    assert np.array_equal(large.train.read(), small.train.read())
    part = large.train[np.array([5, 1])][::-1]
    assert np.array_equal(part.read(), small.train.read([1, 5]))
    assert type(large.train.x[[1]]) is np.ndarray


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("why", ["cache=False", "disk full", "disk full after all", "no folder"])
def test_without_a_file_images_are_in_memory_or_decoded_when_asked_for(damaged, monkeypatch, tmp_path, cache, why):
    first = load(damaged, 8, unreadable="skip")
    packed.clear()
    if why == "disk full":
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    if why == "disk full after all":

        def full(*arguments):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(packed, "fill", full)
    if why == "no folder":
        (tmp_path / "file").touch()
        monkeypatch.setenv("JUANJI_CACHE", str(tmp_path / "file"))
    options = {"unreadable": "skip", "cache": why != "cache=False"}

    def again():
        if why == "disk full":
            with pytest.warns(UserWarning, match=r"the images are not kept in .*GB are free .juanji cache --clear"):
                return load(damaged, 8, **options)
        return load(damaged, 8, **options)

    assert np.array_equal(again().train.x, first.train.x)
    monkeypatch.setattr(packed, "memory", lambda: 1000)
    lazy = again()
    assert isinstance(lazy.train.x, Decoder)
    assert np.array_equal(lazy.train.read(), first.train.x.astype(np.float32) * np.float32(1 / 255))
    assert lazy.train.x[[3, 1]].tolist() == first.train.x[[3, 1]].tolist()
    assert lazy.train.x[2].shape == (8, 8, 3)
    assert lazy.train.x[:0].shape == (0, 8, 8, 3)
    assert not cache.exists() or files(cache) == {}


def test_the_command_shows_and_removes_them(photos, cache, capsys):
    from juanji.cli import main

    load(photos, 8)
    (cache / "unfinished-x").write_text("left by a process that was ended")
    (cache / "mine.txt").write_text("not juanji's")
    with pytest.raises(SystemExit):
        main(["cache"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{cache.parent}: ")
    assert lines[1].startswith(f"{cache}: 2 sets of images, ")
    with pytest.raises(SystemExit):
        main(["cache", "--clear"])
    assert "2 sets of images" in capsys.readouterr().out
    assert [path.name for path in cache.iterdir()] == ["mine.txt"]


def test_memory_is_what_the_machine_and_the_container_have(tmp_path, monkeypatch):
    whole = packed.memory()
    assert 1 << 28 < whole < 1 << 45
    (tmp_path / "limit").write_text("1000000\n")
    monkeypatch.setattr(packed, "LIMITS", (str(tmp_path / "limit"), str(tmp_path / "gone")))
    assert packed.memory() == 1_000_000
    (tmp_path / "limit").write_text("max\n")
    assert packed.memory() >= whole


# Splitting.


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 3), st.floats(0.05, 0.9))
@settings(deadline=None)
def test_a_split_has_each_class_in_its_share(sizes, seed, share):
    y = np.repeat(np.arange(len(sizes)), sizes)
    values = np.random.default_rng(seed).integers(0, 1 << 63, len(y)).astype(np.uint64)
    held = split(y, values, seed, share)
    for label, size in enumerate(sizes):
        count = held[y == label].sum()
        assert abs(count - share * size) <= 1
        assert size < 2 or 0 < count < size
    order = np.random.default_rng(9).permutation(len(y))
    assert np.array_equal(split(y[order], values[order], seed, share), held[order])


def test_copies_stay_together():
    values = np.repeat(np.arange(10, dtype=np.uint64), 3)
    held = split(np.zeros(30, int), values).reshape(10, 3)
    assert np.array_equal(held.all(axis=1), held.any(axis=1))
    assert held.any()
    # Two images that are copies: one on each side, because each side needs one.
    assert split(np.zeros(2, int), np.zeros(2, np.uint64)).sum() == 1


@pytest.mark.parametrize(("copies", "held"), [([18, 1, 1], 2), ([10, 10], 10), ([4] * 5, 4), ([9, 1], 1), ([99, 1], 1)])
def test_copies_that_are_most_of_a_class_are_to_train_on(copies, held):
    values = np.repeat(np.random.default_rng(0).integers(1, 2**63, len(copies)), copies).astype(np.uint64)
    for seed in range(8):
        assert split(np.zeros(len(values), int), values, seed, 0.1).sum() == held


def test_copies_in_several_classes_are_on_one_side():
    values = np.random.default_rng(0).integers(1, 2**63, 40).astype(np.uint64)
    y = np.arange(40) % 2
    values[1] = values[0]
    found = [split(y, values, seed) for seed in range(40)]
    assert {(bool(held[0]), bool(held[1])) for held in found} == {(True, True), (False, False)}
    assert all(3 <= held[y == label].sum() <= 4 for held in found for label in (0, 1))


def test_a_new_image_moves_few_others():
    values = np.random.default_rng(0).integers(0, 1 << 63, 1000).astype(np.uint64)
    before, after = split(np.zeros(999, int), values[:-1]), split(np.zeros(1000, int), values)
    assert (before != after[:-1]).sum() <= 1


def test_the_share_is_checked():
    with pytest.raises(ArgumentError, match=r"split: bad share"):
        split(np.zeros(2, int), np.zeros(2, np.uint64), share=1.5)


def test_digests_are_of_the_content_and_kept(photos, monkeypatch):
    (photos / "b/copy.png").write_bytes((photos / "a/00.png").read_bytes())
    samples = find(photos).samples
    found = digests(samples)
    names = [samples.name(i)[-8:] for i in range(31)]
    assert found[names.index("copy.png")] == found[[name.endswith("00.png") for name in names].index(True)]
    assert len(set(found.tolist())) == 30
    monkeypatch.setattr(type(samples), "content", None)
    assert np.array_equal(digests(find(photos).samples), found)


# Work by threads.


@pytest.mark.parametrize("count", ["1", "3"])
def test_chunks_come_in_order_and_errors_come_out(monkeypatch, count):
    monkeypatch.setenv("JUANJI_THREADS", count)
    assert [len(part) for part in chunks(list, np.arange(100), 32)] == [32, 32, 32, 4]
    assert [i for part in chunks(list, np.arange(100), 7) for i in part] == list(range(100))

    def fail(part):
        if 50 in part:
            raise DataError("fifty")
        return len(part)

    with pytest.raises(DataError, match="fifty"):
        list(chunks(fail, np.arange(100), 8))


def test_the_same_bits_whatever_the_threads(photos, monkeypatch):
    results = []
    for count in ("1", "2", "7"):
        monkeypatch.setenv("JUANJI_THREADS", count)
        results.append(load(photos, 9, room=1.2, cache=False).train.x.tobytes())
    assert len(set(results)) == 1


def test_packed_files_hold_pixels_and_notes(photos, cache):
    data = load(photos, 8)
    contents = [path.read_bytes() for path in cache.iterdir()]
    pixels = data.train.x.tobytes()
    raw = next(content for content in contents if content.startswith(pixels))
    notes = json.loads(raw[len(pixels) : raw.index(b"}", len(pixels)) + 1])
    assert notes == {"shape": [24, 8, 8, 3], "dtype": "|u1", "failures": []}
