"""`juanji check`: what it finds, what it calls wrong, how it tells it."""

import io
import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from juanji.cli import main
from juanji.data import check, load
from juanji.errors import DataError

pytestmark = pytest.mark.usefixtures("own_cache")


def picture(seed=0, height=20, width=24, mode="RGB"):
    x = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(x).convert(mode)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def data(tmp_path):
    """Two classes of twelve images, with nothing to be found."""
    for i in range(24):
        save(picture(i), tmp_path / "photos" / ("cat", "dog")[i % 2] / f"{i:02}.png")
    return tmp_path / "photos"


def found(data):
    """What is found, by kind; and that each is what the command's exit code says."""
    report = check(data)
    return {finding.kind: finding for finding in report.findings}


def told(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["check", *map(str, arguments)])
    return ended.value.code, capsys.readouterr().out


def test_nothing_is_found_where_nothing_is_wrong(data, capsys):
    report = check(data)
    assert [finding.kind for finding in report.findings] == ["no parts"]
    assert not report.wrong
    assert (report.images, report.classes, report.counts) == (24, ("cat", "dog"), {"all": (12, 12)})
    assert report.smallest == report.median == report.largest == (20, 24)
    code, output = told(capsys, data)
    assert code == 0
    assert "photos: 24 images of 2 classes" in output
    assert "24×20 to 24×20, median 24×20 (width × height)" in output
    assert output.endswith("nothing is wrong\n")


def damage(data):
    whole = (data / "cat/00.png").read_bytes()
    (data / "cat/cut.png").write_bytes(whole[: len(whole) // 2])
    (data / "dog/text.jpg").write_text("no image")
    (data / "dog/empty.gif").touch()


def case(path, value):
    """Write both names, where they are two."""
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        pytest.skip("names differ by more than case here")
    save(picture(value), path)


def leak(data):
    copy(data, "cat/00.png", "train/cat/1.png")
    copy(data, "dog/01.png", "train/dog/2.png")
    copy(data, "cat/02.png", "test/cat/3.png")
    copy(data, "cat/00.png", "test/cat/copy.png")
    shutil.rmtree(data / "cat")
    shutil.rmtree(data / "dog")


def copy(data, name, other):
    (data / other).parent.mkdir(parents=True, exist_ok=True)
    (data / other).write_bytes((data / name).read_bytes())


def lone_test_class(data):
    copy(data, "cat/00.png", "train/cat/1.png")
    copy(data, "dog/01.png", "train/dog/2.png")
    copy(data, "cat/02.png", "test/bird/3.png")
    shutil.rmtree(data / "cat")
    shutil.rmtree(data / "dog")


def foreign(data):
    """A folder as a system of another encoding has written it."""
    try:
        os.mkdir(os.path.join(os.fsencode(data), "über".encode("latin-1")))
    except (OSError, UnicodeError):
        pytest.skip("names are UTF-8 here")
    save(picture(77), data / os.fsdecode(b"\xfcber") / "1.png")


WRONG = {
    "unreadable": (damage, 3, r"cut\.png: the image cannot be read: .*truncated"),
    "one class": (lambda data: shutil.rmtree(data / "dog"), 1, "there is only one class"),
    "no training images": (lone_test_class, 1, "1 class without an image to train on\n  bird"),
    "duplicates across classes": (lambda d: copy(d, "cat/00.png", "dog/x.png"), 1, r"cat.00\.png = .*dog.x\.png"),
    "duplicates across parts": (leak, 1, r"test.cat.copy\.png = .*train.cat.1\.png"),
    "classes alike": (lambda data: case(data / "Cat/x.png", 99), 1, "Cat = cat"),
    "names not UTF-8": (foreign, 1, r"whose names are no UTF-8\n  \\udcfcber\n  fix: rename"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_makes_training_wrong(data, capsys, kind):
    change, count, text = WRONG[kind]
    change(data)
    finding = found(data)[kind]
    assert finding.level == "wrong"
    assert len(finding.names) == count
    code, output = told(capsys, data)
    assert code == 1
    assert "training would be wrong: 1 finding" in output
    assert re.search(text, output), output
    # JSON says the same.
    code, output = told(capsys, data, "--json")
    assert code == 1
    assert json.loads(output)["wrong"] is True
    assert kind in [finding["kind"] for finding in json.loads(output)["findings"]]


@pytest.mark.parametrize("kind", ["unreadable", "one class", "no training images", "names not UTF-8"])
def test_what_cannot_be_trained_on_is_refused_by_load_too(data, kind):
    WRONG[kind][0](data)
    with pytest.raises(DataError):
        load(data, 8)


def animate(data):
    frames = [picture(100 + i).convert("P") for i in range(3)]
    save(frames[0], data / "cat/moving.gif", save_all=True, append_images=frames[1:])


def turn(data):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture(200), data / "cat/turned.jpg", exif=exif)


def second_picture(data):
    """A telephone's JPEG with a second picture in it."""
    save(picture(201), data / "cat/phone.jpg", format="MPO", save_all=True, append_images=[picture(202)])


def sixteen(data):
    grey = np.random.default_rng(0).integers(0, 65536, (20, 24)).astype(np.uint16)
    save(Image.fromarray(grey), data / "cat/deep.png")


OTHERS = {
    "empty classes": (lambda data: (data / "bird").mkdir(), "warning", ["bird"]),
    "tiny classes": (lambda data: save(picture(50), data / "bird/1.png"), "warning", ["bird: 1"]),
    "unbalanced": (lambda data: save(picture(50), data / "bird/1.png"), "warning", []),
    "duplicates": (lambda data: copy(data, "cat/00.png", "cat/x.png"), "warning", ["00.png = "]),
    "names alike": (lambda data: case(data / "cat/00.PNG", 51), "warning", ["00.PNG = "]),
    "strays": (lambda data: save(picture(52), data / "stray.png"), "warning", ["stray.png"]),
    "other files": (lambda data: (data / "cat/notes.txt").touch(), "note", ["cat/notes.txt"]),
    "other formats": (lambda data: (data / "cat/IMG.HEIC").touch(), "warning", ["cat/IMG.HEIC"]),
    "nearly black": (lambda data: save(Image.new("RGB", (9, 9), (5, 9, 2)), data / "cat/x.png"), "warning", ["x.png"]),
    "one colour": (lambda data: save(Image.new("L", (9, 9), 200), data / "cat/x.png"), "warning", ["x.png"]),
    "animated": (animate, "note", ["moving.gif"]),
    "turned": (turn, "note", ["turned.jpg"]),
    "16 bits": (sixteen, "note", ["deep.png"]),
    "transparent": (lambda data: save(picture(53, mode="RGBA"), data / "cat/x.png"), "note", ["x.png"]),
    "palette": (lambda data: save(picture(54, mode="P"), data / "cat/x.png"), "note", ["x.png"]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_may_be_wrong_and_what_is_good_to_know(data, capsys, kind):
    change, level, names = OTHERS[kind]
    change(data)
    finding = found(data)[kind]
    assert finding.level == level
    assert len(finding.names) == len(names)
    assert all(expected in name for name, expected in zip(finding.names, names, strict=True))
    code, output = told(capsys, data)
    assert code == 0
    assert f"{level}: {finding.what}" in output


def test_a_second_picture_in_a_photograph_is_no_animation(data):
    second_picture(data)
    assert "animated" not in found(data)


def test_turned_images_are_measured_upright(data):
    turn(data)
    assert check(data).largest == (24, 24)


def test_every_kind_of_data_is_checked(data, tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)
    x[3], x[5] = x[2], 0
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(20) % 2)
    kinds = found(tmp_path / "d.npz")
    assert kinds["duplicates across classes"].names == (f"{tmp_path / 'd.npz'}[2] = {tmp_path / 'd.npz'}[3]",)
    assert len(kinds["nearly black"].names) == 1
    np.savez(tmp_path / "f.npz", x=(x[..., 0] / 255).astype(np.float32), y=np.arange(20) % 2)
    assert len(found(tmp_path / "f.npz")["nearly black"].names) == 1
    (tmp_path / "t.csv").write_text("".join(f"photos/cat/{i:02}.png,{i % 4}\n" for i in range(0, 24, 2)))
    assert check(tmp_path / "t.csv").counts == {"all": (6, 6)}
    assert told(capsys, "digits")[0] == 0


def test_a_part_for_validation_only_is_told(data):
    leak(data)
    (data / "test").rename(data / "val")
    assert "val is taken for it" in found(data)["no test part"].what


def test_long_lists_are_cut_and_many_classes_summed_up(tmp_path, capsys):
    for i in range(45):
        save(picture(i), tmp_path / f"class{i}/1.png")
    for i in range(15):
        (tmp_path / f"class0/bad{i:02}.png").write_bytes(b"")
    code, output = told(capsys, tmp_path)
    assert code == 1
    assert "all: 1 to 16 images a class, 60 together" in output
    assert "bad09.png" in output
    assert "bad10.png" not in output
    assert "and 5 more" in output
    assert len(json.loads(told(capsys, tmp_path, "--json")[1])["findings"][0]["names"]) == 15


def test_what_is_no_data_ends_with_2(tmp_path, capsys):
    assert told(capsys, tmp_path)[0] == 2
    assert told(capsys, tmp_path / "gone")[0] == 2


def test_progress_is_told(data):
    steps = []
    check(data, progress=lambda *step: steps.append(step))
    assert steps[-1] == ("looking at images", 24, 24)


def test_damage_of_every_kind_is_found_by_name(data):
    """Bytes changed at random in JPEGs: whatever it does to them, the check ends, and load agrees with it."""
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    picture(7, 64, 64).save(buffer, "jpeg")
    for i in range(30):
        bad = bytearray(buffer.getvalue())
        for place in rng.integers(0, len(bad), 4):
            bad[place] ^= 1 << rng.integers(8)
        (data / f"cat/{i}.jpg").write_bytes(bad)
    report = check(data)
    unreadable = next((len(f.names) for f in report.findings if f.kind == "unreadable"), 0)
    with pytest.warns(UserWarning, match="that cannot be read, left out"):
        loaded = load(data, 8, unreadable="skip")
    assert unreadable
    assert len(loaded.train) + len(loaded.test) == report.images - unreadable
