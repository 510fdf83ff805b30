"""juanji augment: a sheet of what the network sees."""

import warnings

import numpy as np
import pytest
from PIL import Image

from juanji.cli import main
from juanji.cli.augment import CELL, GAP, seen, sheet
from juanji.data import PRESETS, Augment, Dataset, Images, batches, digits, read_image
from juanji.train import Choices, Facts


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return (ended.value.code, *capsys.readouterr())


def test_a_sheet_of_digits(capsys, tmp_path):
    path = tmp_path / "sheet.png"
    options = ["--augment", "handwriting", "--images", 3, "--epochs", 2, "--size", 12]
    code, output, errors = call(capsys, "augment", "digits", "-o", path, *options)  # nothing is chosen, nor told
    assert (code, errors) == (0, "")
    assert output == (
        f"{path}: 3 images of digits, as they are and in epochs 1 to 2; "
        "jitter=Jitter(shift=0.1, turn=12, zoom=0.12, slant=0.12)\n"
    )
    cell = 12 * round(CELL / 12) + GAP
    picture = read_image(path)
    assert picture.shape == (3 * cell + GAP, 3 * cell + GAP, 1)
    train = digits(12).train
    first = picture[GAP : cell : CELL // 12, GAP : cell : CELL // 12]
    assert (np.abs(train.x - first).max(axis=(1, 2, 3)) < 1 / 255).sum() == 1


def test_what_is_not_given_is_chosen_as_training_chooses(capsys, tmp_path):
    """The size, the changes, and room for random cuts, which training images are stored with."""
    rng = np.random.default_rng(0)
    for i in range(12):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8)).save(
            tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        )
    path, data = tmp_path / "sheet.png", str(tmp_path / "photos")
    code, output, errors = call(capsys, "augment", data, "-o", path, "--images", 3, "--epochs", 1)
    assert (code, errors) == (0, "")
    first, last = output.splitlines()
    assert first == "size 64: the images have 90×60 pixels in the median"
    assert last.endswith(f"3 images of {data}, as they are and in epochs 1 to 1; {PRESETS['standard']}")
    choices = Choices.of(data, Facts.of(data), {})
    assert (choices.side, choices.recipe.augment) == (64, PRESETS["standard"])
    shown = sheet(seen(choices.load_data(), choices.recipe.augment, 3, 1, 0))
    assert np.abs(read_image(path) - shown).max() < 1 / 255


def test_it_shows_what_training_sees():
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), np.uint8)
    images = Images(x, np.arange(20) % 4)
    data = Dataset("mine", images, images[:0], tuple("abcd"))
    shown = seen(data, PRESETS["strong"], images=5, epochs=2, seed=3)
    assert shown.shape == (5, 3, 6, 6, 3)
    plain = images.read()
    for row in shown:
        assert (plain == row[0]).all(axis=(1, 2, 3)).sum() == 1
    for epoch in (1, 2):
        given = np.concatenate(
            [x for x, _ in batches(images, 7, seed=3, epoch=epoch, change=PRESETS["strong"], classes=4)]
        )
        for row in shown:
            assert (given == row[epoch]).all(axis=(1, 2, 3)).any()


def test_the_original_is_of_the_size_that_is_tested_on():
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 9, 1), np.uint8)
    train, test = Images(x, np.arange(4)), Images(x[:, 1:7, 1:7], np.arange(4))
    shown = seen(Dataset("mine", train, test, tuple("abcd")), Augment.of("standard"), images=9, epochs=1, seed=0)
    assert shown.shape == (4, 2, 6, 6, 1)
    assert sorted(shown[:, 0].ravel()) == sorted(test.read().ravel())


def test_large_images_are_not_enlarged():
    cells = np.arange(4, dtype=np.float32).reshape(2, 2, 1, 1, 1) / 4 * np.ones((200, 150, 1), np.float32)
    picture = sheet(cells)
    assert picture.shape == (2 * 204 + 4, 2 * 154 + 4, 1)
    assert picture[:, :GAP].min() == picture[-GAP:].min() == 1
    assert [picture[10, 10], picture[10, 170], picture[220, 10], picture[220, 170]] == [0, 0.25, 0.5, 0.75]


def test_images_that_cannot_be_read(capsys, tmp_path):
    """Are passed over where that is asked for, as they are for training."""
    for i in range(12):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 12), 20 * i, np.uint8)).save(path)
    (tmp_path / "data/a/0.png").write_bytes(b"no image")
    arguments = ["augment", tmp_path / "data", "-o", tmp_path / "x.png", "--size", "8"]
    code, _, errors = call(capsys, *arguments)
    assert (code, "0.png" in errors, "--skip-unreadable" in errors) == (2, True, True)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, output, errors = call(capsys, *arguments, "--skip-unreadable", "--resize", "stretch")
    assert "1 image that cannot be read, left out" in errors
    assert (code, "8 images of " in output) == (0, True), errors


def test_mistakes(capsys, tmp_path):
    for options, message in [
        (["--augment", "stron"], "there is no augmentation named 'stron'"),
        (["--augment", "light,shift=2"], "augment: bad shift"),
        (["--images", "0"], "augment: bad images"),
        (["--epochs", "0"], "augment: bad epochs"),
    ]:
        code, _, errors = call(capsys, "augment", "digits", "-o", tmp_path / "x.png", *options)
        assert (code, message in errors) == (2, True)
    assert not (tmp_path / "x.png").exists()
