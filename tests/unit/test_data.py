"""Datasets, batches, changes of images, and image files of every kind."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from juanji.data import Dataset, Images, Jitter, Preprocessing, batches, digits, load, read_image, write_image
from juanji.errors import ArgumentError, DataError, UnknownNameError


def some(n=10, classes=3):
    rng = np.random.default_rng(0)
    return Images(rng.random((n, 4, 5, 1), np.float32), np.arange(n) % classes)


def test_digits_are_split_by_class_and_always_the_same():
    data = digits()
    assert (data.train.x.shape, data.test.x.shape) == ((1201, 28, 28, 1), (596, 28, 28, 1))
    assert data.train.x.dtype == np.float32
    assert (data.train.x.min(), data.train.x.max()) == (0, 1)
    assert data.classes == tuple("0123456789")
    shares = np.bincount(data.test.y) / (np.bincount(data.test.y) + np.bincount(data.train.y))
    assert np.allclose(shares, 1 / 3, atol=0.005)
    again = load("digits")
    assert np.array_equal(again.train.x, data.train.x)
    assert np.array_equal(again.test.y, data.test.y)


def test_digits_are_enlarged_bilinearly():
    from importlib import resources

    with np.load(str(resources.files("juanji.data") / "digits.npz")) as arrays:
        first = arrays["images"][0].astype(np.float32) / 16
    # Pixel 1 of 28 lies at 1.5·8/28 − 0.5 = −0.07 of 8, before the first pixel; 10 lies at 2.5, half-way.
    assert digits().train.x[0, 10, 10, 0] == pytest.approx(first[2:4, 2:4].mean())
    assert digits().train.x[0, 0, 0, 0] == first[0, 0]


def test_unknown_dataset_names_the_nearest():
    with pytest.raises(UnknownNameError, match=r"there is no dataset named 'digit'[\s\S]*did you mean 'digits'"):
        load("digit")


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
def test_batches_go_through_every_image_once(n, size, epoch):
    images = Images(np.zeros((n, 1, 1, 1), np.float32), np.arange(n))
    labels = [y for _, y in batches(images, size, seed=1, epoch=epoch)]
    assert sorted(np.concatenate(labels)) == list(range(n))
    assert [len(y) for y in labels[:-1]] == [size] * (len(labels) - 1)


def test_order_depends_on_seed_and_epoch_alone():
    images = Images(np.zeros((50, 1, 1, 1), np.float32), np.arange(50))
    order = lambda **options: np.concatenate([y for _, y in batches(images, 7, **options)]).tolist()  # noqa: E731
    assert order(seed=1, epoch=2) == order(seed=1, epoch=2)
    assert len({tuple(order(seed=s, epoch=e)) for s in range(3) for e in range(3)}) == 9
    assert order(shuffle=False) == list(range(50))


def test_a_change_belongs_to_the_image_whatever_the_order():
    images = Images(digits().train.x[:20], np.arange(20))
    jitter = Jitter(0.1, 12, 0.1, 0.1)
    one = {int(y): x for xs, ys in batches(images, 6, change=jitter) for x, y in zip(xs, ys, strict=True)}
    other = {
        int(y): x for xs, ys in batches(images, 20, shuffle=False, change=jitter) for x, y in zip(xs, ys, strict=True)
    }
    assert all(np.array_equal(one[i], other[i]) for i in range(20))
    assert not np.array_equal(one[0], images.x[0])


def test_jitter_moves_and_turns():
    x = np.zeros((1, 9, 9, 1), np.float32)
    x[0, 4, 6] = 1
    middle = np.full((1, 6), 0.5)
    assert np.allclose(Jitter(0.5, 90, 0.5, 0.5)(x, middle), x)
    down = middle.copy()
    down[0, 0] = 1
    assert Jitter(shift=2 / 9)(x, down)[0, 2, 6] == pytest.approx(1)
    turn = middle.copy()
    turn[0, 2] = 1
    turned = Jitter(turn=90)(x, turn)[0, :, :, 0]
    assert np.unravel_index(turned.argmax(), (9, 9)) in [(6, 4), (2, 4)]
    assert turned.sum() == pytest.approx(1, abs=1e-5)


def test_preprocessing_gives_mean_0_and_variance_1():
    images = some(40)
    x = Preprocessing.of(images)(images.x)
    assert x.dtype == np.float32
    assert (x.mean(), x.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))


def test_preprocessing_leaves_a_constant_channel():
    images = Images(np.ones((3, 2, 2, 1), np.float32), np.zeros(3, np.int64))
    assert (Preprocessing.of(images)(images.x) == 0).all()


def test_wrong_datasets():
    x, y = some().x, some().y
    with pytest.raises(DataError, match=r"one label for each image[\s\S]*10 images, labels of shape \(9,\)"):
        Images(x, y[:9])
    with pytest.raises(DataError, match="not labelled images"):
        Images(x[0], y)
    with pytest.raises(DataError, match="not labelled images"):
        Images(x, y.astype(np.float32))
    for wrong, told in (
        ((x.astype(np.float64), y), r"x float64\[10"),
        ((x, y.astype(np.int32)), r"y int32\[10\]"),
        ((list(x), y), "x list, y int64"),
        ((x, y.tolist()), "y list"),
    ):
        with pytest.raises(
            DataError, match=rf"not labelled images\n  received  .*{told}[\s\S]*fix .*asarray\(y, np\.int64"
        ):
            Images(*wrong)
    with pytest.raises(DataError, match="the dataset 'mine' is empty"):
        Dataset("mine", some()[:0], some(), ("a", "b", "c"))
    with pytest.raises(DataError, match=r"labels without a class[\s\S]*label 2[\s\S]*0 to 1"):
        Dataset("mine", some(), some(), ("a", "b"))
    with pytest.raises(DataError, match="the dataset is empty"):
        batches(some()[:0], 4)
    with pytest.raises(ArgumentError, match=r"batches: bad size[\s\S]*size=0"):
        batches(some(), 0)


# Image files. The picture is 6 wide and 4 high, red on the left, blue on the right.

WIDE = np.zeros((4, 6, 3), np.uint8)
WIDE[:, :3, 0] = 255
WIDE[:, 3:, 2] = 255


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_every_mode_is_read(tmp_path, mode, channels):
    ending = {"CMYK": "tif", "YCbCr": "tif", "PA": "tif"}.get(mode, "png")
    path = tmp_path / f"image.{ending}"
    grey = np.full((4, 6), 30000, np.uint16)
    if mode == "I;16":
        image = Image.fromarray(grey if mode == "I;16" else grey.astype(np.int32))
    elif mode == "PA":
        image = Image.fromarray(WIDE).convert("P").convert("PA")
    else:
        image = Image.fromarray(WIDE).convert(mode)
    try:
        image.save(path)
    except OSError:
        pytest.skip(f"Pillow writes no {mode} as {ending}")
    x = read_image(path, channels)
    own = {"1": 1, "L": 1, "LA": 4, "P": 3, "PA": 4, "RGBA": 4, "I;16": 1}.get(mode, 3)
    assert x.shape == (4, 6, channels or own)
    assert x.dtype == np.float32
    if mode == "I;16":
        assert x[0, 0, 0] == pytest.approx(30000 / 65535)
    elif mode in ("RGB", "RGBA", "P") and channels != 1:
        assert np.allclose(x[0, 0, :3], [1, 0, 0], atol=0.02)
    elif mode in ("RGB", "L", "RGBA"):
        assert x[0, 0, 0] == pytest.approx(0.299, abs=0.01)


def test_transparency_is_laid_on_white(tmp_path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 3] = 0, 255, 51
    Image.fromarray(pixels).save(tmp_path / "t.png")
    assert np.allclose(read_image(tmp_path / "t.png", 1)[0, :, 0], [1, 0, 0.8])
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([9, 9, 9, 200, 100, 0])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=0)
    assert np.allclose(read_image(tmp_path / "p.png")[0], [[9 / 255] * 3 + [0], [200 / 255, 100 / 255, 0, 1]])


def test_exif_orientation_is_followed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the picture is at the right
    Image.fromarray(WIDE).save(tmp_path / "turned.png", exif=exif)
    x = read_image(tmp_path / "turned.png")
    assert x.shape == (6, 4, 3)
    assert np.allclose(x[0, 0], [1, 0, 0])
    assert np.allclose(x[-1, 0], [0, 0, 1])


def test_size_averages(tmp_path):
    checks = np.indices((8, 8)).sum(0) % 2 * 255
    Image.fromarray(checks.astype(np.uint8)).save(tmp_path / "c.png")
    small = read_image(tmp_path / "c.png", 1, (2, 3))
    assert small.shape == (2, 3, 1)
    assert np.allclose(small, 0.5, atol=0.05)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_written_images_are_read_back(tmp_path, channels):
    x = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.float32) / 255
    write_image(tmp_path / "x.png", x)
    assert np.allclose(read_image(tmp_path / "x.png"), x)


def test_arrays_that_are_no_images(tmp_path):
    with pytest.raises(ArgumentError, match=r"write_image: not an image[\s\S]*\(5, 5, 2\)"):
        write_image(tmp_path / "x.png", np.ones((5, 5, 2)))
    with pytest.raises(DataError, match=r"values from 0 to 255[\s\S]*divide bytes by 255"):
        Images(np.array([0, 255], np.float32).reshape(2, 1, 1, 1), np.arange(2))


def test_unreadable_images_are_named(tmp_path):
    with pytest.raises(DataError, match=r"this is a folder[\s\S]*\*\.png"):
        read_image(tmp_path)
    with pytest.raises(DataError, match=r"gone\.png: there is no such image file"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(DataError, match=r"text\.png: the image cannot be read[\s\S]*a whole image file"):
        read_image(tmp_path / "text.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(DataError, match=r"empty\.png: the image cannot be read\n  received  an empty file"):
        read_image(tmp_path / "empty.png")


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about the damage
@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "gif", "tif", "webp"])
def test_truncated_and_damaged_images_are_named(tmp_path, ending):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending))
    whole, path = buffer.getvalue(), tmp_path / f"cut.{ending}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"cut\.{ending}: the image cannot be read"):
        read_image(path)
    rng = np.random.default_rng(1)
    for _ in range(30):
        bad = bytearray(whole)
        for place in rng.integers(0, min(len(bad), 200), 3):
            bad[place] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        # The picture may still be whole; what must not come out is another error.
        with contextlib.suppress(DataError):
            read_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # Pillow warns before it is told to refuse
def test_decompression_bombs_are_refused(tmp_path, monkeypatch):
    Image.fromarray(WIDE).save(tmp_path / "big.png")
    for limit in (20, 10):  # more than the limit, and more than twice as much
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=r"big\.png: the image is too large to be read safely"):
            read_image(tmp_path / "big.png")


def test_pixel_types_that_are_not_read(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(DataError, match=r"f\.tif: images of this pixel type are not read[\s\S]*mode F"):
        read_image(tmp_path / "f.tif")
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(DataError, match=r"i\.tif: images of this pixel type are not read[\s\S]*mode I"):
        read_image(tmp_path / "i.tif")


def test_bad_options_and_endings(tmp_path):
    with pytest.raises(ArgumentError, match=r"read_image: bad channels[\s\S]*1, 3, 4"):
        read_image("x.png", 2)
    with pytest.raises(ArgumentError, match=r"read_image: bad size"):
        read_image("x.png", 1, (0, 3))


def test_images_that_cannot_be_written_leave_the_old_file(tmp_path):
    for name, channels in [("x.unknown", 1), ("x", 3), ("x.jpg", 4)]:
        (tmp_path / name).write_text("before")
        with pytest.raises(DataError, match=rf"{name}: the image cannot be written in this format[\s\S]*\.png holds"):
            write_image(tmp_path / name, np.zeros((2, 2, channels)))
        assert (tmp_path / name).read_text() == "before"
    with pytest.raises(DataError, match=r"x\.png: the file cannot be written[\s\S]*a folder that exists"):
        write_image(tmp_path / "no" / "x.png", np.zeros((2, 2, 1)))


def test_formats_whose_decoders_run_programs_are_not_opened(tmp_path):
    Image.fromarray(WIDE).save(tmp_path / "x.eps")
    with pytest.raises(DataError, match=r"x\.eps: images of this format are not read[\s\S]*\.png, \.jpg"):
        read_image(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png: the image cannot be read[\s\S]*PNG, JPEG"):
        read_image(tmp_path / "x.png")


class Lazy:
    """Pixels that are not an array, and remember what was read."""

    def __init__(self, x):
        self.x, self.read = x, []

    shape = property(lambda self: self.x.shape)
    dtype = property(lambda self: self.x.dtype)

    def __getitem__(self, chosen):
        self.read.append(chosen)
        return self.x[chosen]


def test_bytes_are_images():
    x = np.arange(256, dtype=np.uint8).reshape(64, 2, 2, 1)
    images = Images(x, np.arange(64))
    assert images.read([1])[0, 0, 0, 0] == np.float32(4 / 255)
    assert images.read().dtype == np.float32
    assert images.read().max() == 1


def test_parts_of_images_that_are_not_in_memory_are_read_when_asked_for():
    pixels = Lazy(np.random.default_rng(0).integers(0, 256, (9, 2, 2, 3), np.uint8))
    part = Images(pixels, np.arange(9))[np.array([7, 2, 5])][1:]
    assert len(part) == 2
    assert part.y.tolist() == [2, 5]
    assert not pixels.read
    assert np.array_equal(part.x[np.array([1])], pixels.x[[5]])
    assert [x.shape for x, _ in batches(part, 2, shuffle=False)] == [(2, 2, 2, 3)]


def test_the_mean_and_deviation_are_taken_a_block_at_a_time():
    x = np.random.default_rng(0).random((600, 3, 2, 2), np.float32)
    x[..., 1] = 0.3
    shown = Preprocessing.of(Images(Lazy(x), np.zeros(600, np.int64)))
    assert np.allclose(shown.mean, x.mean(axis=(0, 1, 2), dtype=np.float64))
    assert shown.std[0] == pytest.approx(x[..., 0].std(dtype=np.float64))
    assert shown.std[1] == 1
