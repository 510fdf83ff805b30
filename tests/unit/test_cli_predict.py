"""juanji predict: images from files, folders, archives and standard input, and the forms of what is printed."""

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from juanji import nn
from juanji.cli import main
from juanji.cli.inputs import Input, inputs
from juanji.data import Preprocessing, archives
from juanji.errors import DataError, NonFiniteError
from juanji.train import Config, Recipe, Run, save_run

CLASSES = ("left", "right", "中")


def png(left, right):
    """A grey image, 4×4, of two halves."""
    x = np.full((4, 4), left, np.uint8)
    x[:, 2:] = right
    file = io.BytesIO()
    Image.fromarray(x).save(file, "PNG")
    return file.getvalue()


LEFT, RIGHT = png(250, 10), png(10, 250)


def net(name, **options):
    """Says which half is lighter."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    weight = np.zeros((3, 4, 4), np.float32)
    weight[0, :, :2] = weight[1, :, 2:] = 1
    model[1].weight, model[1].bias = weight.reshape(3, 16), np.array([0, 0, -99], np.float32)
    model.config = {"name": name, **options}
    return model


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("juanji.models.create", net)
    (tmp_path / "run").mkdir()
    config = Config({"name": "net"}, "halves", CLASSES, Preprocessing((4, 4), 1, (0.5,), (0.25,)), Recipe())
    save_run(tmp_path / "run", config, net("net"), (), {})
    return "run"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder of images in folders, and other things, and archives of it."""
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "b/1.png": LEFT, "b/c/2.PNG": RIGHT, "a.png": RIGHT, "readme.txt": b"", ".hidden.png": b"", "._a.png": b"",
    }.items():  # fmt: skip
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with zipfile.ZipFile("tree.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("b/1.png", "b/c/2.PNG", "a.png", "readme.txt", "._a.png"):
            archive.write(tmp_path / "tree" / name, name)
    for ending in ("tar", "tar.gz", "tgz"):
        with tarfile.open(f"tree.{ending}", "w:gz" if "g" in ending else "w") as archive:
            archive.add("tree")
    return tmp_path


def test_images_of_other_formats_are_told(capsys, tree, run):
    """And not opened: the raw images of cameras begin with a thumbnail that can be read."""
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tree / "tree" / "photo.nef", "TIFF")
    with zipfile.ZipFile("raw.zip", "w") as archive:
        archive.write(tree / "tree" / "photo.nef", "photo.HEIC")
    named = (("tree", "photo.nef", 3), ("raw.zip", "photo.HEIC", 0), ("tree/photo.nef", "photo.nef", 0))
    for path, name, answers in named:
        code, output, errors = call(capsys, run, path)
        assert (code, output.count("\n")) == (2, answers)
        assert f"{name}: images of this format are not read\n  received  {name[name.index('.') :]}\n  rule" in errors
        assert "save it as a JPEG or PNG file" in errors


def call(capsys, *arguments):
    """Exit code, output and error output of `juanji predict ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main(["predict", *map(str, arguments)])
    return (ended.value.code, *capsys.readouterr())


def first(output):
    """What is on each image, by JSON."""
    return {result["image"].replace("\\", "/"): result["predictions"][0]["class"] for result in json.loads(output)}


def test_folders_are_searched_in_order(run, tree, capsys):
    code, output, errors = call(capsys, run, "tree/b/1.png", "tree", "--json")
    assert (code, errors) == (0, "")
    names = [result["image"].replace("\\", "/") for result in json.loads(output)]
    assert names == ["tree/b/1.png", "tree/a.png", "tree/b/1.png", "tree/b/c/2.PNG"]
    assert first(output) == {"tree/a.png": "right", "tree/b/1.png": "left", "tree/b/c/2.PNG": "right"}


def test_views_are_averaged(run, tree, capsys):
    """What is left of an image is right of its mirror image."""
    _, output, _ = call(capsys, run, "tree/b/1.png", "--tta", "mirror", "--json")
    (left, right, _) = (each["probability"] for each in json.loads(output)[0]["predictions"])
    assert left == pytest.approx(right)


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz"])
def test_archives_are_read_in_place(ending, run, tree, capsys):
    before = sorted(tree.rglob("*"))
    code, output, errors = call(capsys, run, f"tree.{ending}", "--json")
    assert (code, errors) == (0, "")
    inner = f"tree.{ending}/" if ending == "zip" else f"tree.{ending}/tree/"
    assert first(output) == {f"{inner}a.png": "right", f"{inner}b/1.png": "left", f"{inner}b/c/2.PNG": "right"}
    assert sorted(tree.rglob("*")) == before


def given_input(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_standard_input(run, tree, capsys, monkeypatch):
    given_input(monkeypatch, RIGHT)
    assert first(call(capsys, run, "-", "--json")[1]) == {"standard input": "right"}
    given_input(monkeypatch, b"tree/b/1.png\n\ntree.zip\r\n")
    code, output, _ = call(capsys, run, "tree/a.png", "-", "--list", "--json")
    assert code == 0
    assert list(first(output)) == [
        "tree/a.png", "tree/b/1.png", "tree.zip/a.png", "tree.zip/b/1.png", "tree.zip/b/c/2.PNG",
    ]  # fmt: skip
    given_input(monkeypatch, b"tree/b/1.png\0tree/a.png\0")
    assert list(first(call(capsys, run, "-", "--list", "--json")[1])) == ["tree/b/1.png", "tree/a.png"]
    for content, what in (
        (b"", "nothing"),
        (b"\n", "nothing"),
        (b"tree/a.png\r\ntree/b/1.png\n", "the path of a file"),
    ):
        given_input(monkeypatch, content)
        code, output, errors = call(capsys, run, "-", "--json")
        assert (code, json.loads(output)) == (2, [])
        assert (
            f"standard input: this is no image\n  received  {what}\n  rule      one image file\n  fix       --list"
            in errors
        )
    given_input(monkeypatch, b"\0neither")
    assert (
        "standard input: the image cannot be read\n  received  bytes that begin as no image"
        in call(capsys, run, "-")[2]
    )


def test_standard_input_that_is_closed(run, tree, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    told = "standard input: it is closed\n  received  no open file\n  rule      one image file, or with --list paths\n"
    for more in [], ["--list"]:
        code, _, errors = call(capsys, run, "-", *more)
        assert (code, told in errors) == (2, True)


def test_forms_of_the_output(run, tree, capsys):
    _, output, _ = call(capsys, run, "tree/b", "--top", "2", "--csv")
    rows = list(csv.reader(output.splitlines()))
    assert rows[0] == ["image", "class_1", "probability_1", "class_2", "probability_2"]
    assert [(row[0].replace("\\", "/"), row[1], row[3]) for row in rows[1:]] == [
        ("tree/b/1.png", "left", "right"),
        ("tree/b/c/2.PNG", "right", "left"),
    ]
    assert all(0.5 < float(row[2]) <= 1 for row in rows[1:])
    _, output, _ = call(capsys, run, "tree/a.png", "--csv", "--top", "9")
    assert output.splitlines()[0].endswith("class_3,probability_3")  # there are no more
    _, output, _ = call(capsys, run, "tree/a.png", "--top", "1")
    assert output.startswith("tree")
    assert output.endswith("a.png: right (100.0%)\n")


def test_names_that_are_no_text_or_have_several_lines(run, tree, capsys):
    """A class in two lines, and files whose names are bytes of another encoding."""
    config = json.loads((tree / "run" / "config.json").read_text("utf-8"))
    config["classes"][1] = "ri\nght"
    (tree / "run" / "config.json").write_text(json.dumps(config))
    odd = os.fsdecode(b"odd/caf\xe9.png")
    try:
        os.mkdir("odd")
        with open(odd, "wb") as file:
            file.write(RIGHT)
    except (OSError, UnicodeError):
        pytest.skip("names are UTF-8 here")
    assert first(call(capsys, run, odd, "odd", "--json")[1]) == {odd: "ri\nght"}
    _, output, _ = call(capsys, run, "odd", "--csv")
    assert [row[:2] for row in csv.reader(io.StringIO(output))][1] == [r"odd/caf\udce9.png", "ri\nght"]
    _, output, _ = call(capsys, run, "odd")
    assert output.startswith(r"odd/caf\udce9.png: ri\nght (")
    assert output.count("\n") == 1


def test_any_number_of_images_a_batch_at_a_time(run, tree, capsys, monkeypatch):
    sizes = []
    monkeypatch.setattr("juanji.train.evaluation.BATCH", 4)
    predict = Run.predict
    monkeypatch.setattr(Run, "predict", lambda self, x: sizes.append(len(x)) or predict(self, x))
    code, output, errors = call(capsys, run, *["tree", "gone.png"] * 3, "--json")
    assert code == 2
    assert list(map(len, (json.loads(output), sizes))) == [9, 3]
    assert sum(sizes) == 9
    assert errors.count("gone.png: there is no such image file") == 3


def test_the_array_is_closed_whatever_happens(run, tree, capsys, monkeypatch):
    def fail(self, x):
        raise NonFiniteError("prediction: broken")

    monkeypatch.setattr(Run, "predict", fail)
    code, output, errors = call(capsys, run, "tree", "--json")
    assert (code, json.loads(output)) == (2, [])
    assert "prediction: broken" in errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["x.png", "--json", "--csv"], "predict: --json or --csv\n  received  both"),
        (["x.png", "--list"], "predict: --list says how standard input is read\n  received  --list, paths x.png"),
        (["empty"], "empty: there is no image in this folder"),
        (["empty.zip"], "empty.zip: there is no image in this archive"),
        (["gone.zip"], "gone.zip: the file cannot be read\n  received  No such file"),
        (
            ["bad.zip"],
            "bad.zip: the archive is damaged, or not of the kind its name says\n  received  File is not a zip",
        ),
        (["bad.tar"], "bad.tar: the archive is damaged"),
        (["cut.tar"], "cut.tar: the archive is damaged, or not of the kind its name says\n  received  it ends in the"),
    ],
)
def test_what_cannot_be_read_is_told(arguments, text, run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    zipfile.ZipFile("empty.zip", "w").close()
    (tmp_path / "bad.zip").write_bytes(LEFT)
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    (tmp_path / "cut.tar").write_bytes(tarfile.TarInfo("a.txt").tobuf())
    code, _, errors = call(capsys, run, *arguments)
    assert code == 2
    assert text in errors


# What comes from outside


def told(*paths):
    found = list(inputs(paths, False))
    return [x.name for x in found if isinstance(x, Input)], [str(x) for x in found if isinstance(x, DataError)]


@pytest.mark.skipif(os.name == "nt", reason="links need rights that users of Windows lack")
def test_links_that_lead_back(tree):
    (tree / "tree" / "b" / "loop").symlink_to(tree / "tree")
    (tree / "tree" / "z").symlink_to(tree / "tree" / "b")
    names, errors = told("tree")
    assert names == ["tree/a.png", "tree/b/1.png", "tree/b/c/2.PNG", "tree/z/1.png", "tree/z/c/2.PNG"]
    assert [error.splitlines()[0] for error in errors] == [
        f"{os.path.join('tree', 'b', 'loop')}: this is refused",
        f"{os.path.join('tree', 'z', 'loop')}: this is refused",
    ]
    assert "a link that leads round in a circle" in errors[0]


@pytest.mark.skipif(os.name == "nt", reason="links need rights that users of Windows lack")
def test_links_out_and_names_that_lead_out_are_refused_as_in_training(tree):
    """In a folder that alone; of an archive, what follows it too."""
    (tree / "out.png").write_bytes(LEFT)
    (tree / "tree" / "a.png").unlink()
    (tree / "tree" / "a.png").symlink_to(tree / "out.png")
    names, errors = told("tree")
    assert names == ["tree/b/1.png", "tree/b/c/2.PNG"]
    assert "a.png: this is refused\n  received  a link out of the data, to " in errors[0]
    with zipfile.ZipFile("out.zip", "w") as archive:
        archive.writestr("../x.png", LEFT)
    assert "a name that leads out of the archive" in told("out.zip")[1][0]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_links_in_archives_are_followed_as_in_training(ending, run, tree, capsys):
    """Hard ones too, which tar writes for files that are there twice; one that leads nowhere costs nothing else."""
    links = {"b/s.png": "../a.png", "gone.png": "nowhere.png", "gone.txt": "/etc"}
    path = tree / f"links.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.png", RIGHT)
            for name, to in links.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = 0o120777 << 16
                archive.writestr(entry, to)
    else:
        os.link(tree / "tree" / "a.png", tree / "tree" / "h.png")
        with tarfile.open(path, "w:gz" if "g" in ending else "w") as archive:
            archive.add(tree / "tree" / "a.png", "a.png")
            archive.add(tree / "tree" / "h.png", "h.png")
            for name, to in links.items():
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, to
                archive.addfile(entry)
    names = ["a.png", "b/s.png", *([] if ending == "zip" else ["h.png"])]
    code, output, errors = call(capsys, run, path.name, "--json")
    assert (code, first(output)) == (2, {f"{path.name}/{name}": "right" for name in names})
    assert errors.count("juanji: ") == 1
    assert "gone.png: this is refused\n  received  a link to no file of the archive, nowhere.png" in errors


def test_folders_that_may_not_be_read(tree, monkeypatch):
    def scandir(path, listed=os.scandir):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    names, errors = told("tree")
    assert len(names) == 1
    assert "the file cannot be read\n  received  Permission denied" in errors[0]


@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_files_too_large_to_be_images(ending, tree, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", len(LEFT) - 1)
    names, errors = told(f"tree.{ending}")
    assert names == []
    assert len(errors) == 3
    assert f"1.png: the file is too large to be an image\n  received  {len(LEFT)} bytes" in "".join(errors)


def test_archives_with_passwords(tree):
    data = bytearray((tree / "tree.zip").read_bytes())
    for place, flags in ((data.find(b"PK\x03\x04"), 6), (data.find(b"PK\x01\x02"), 8)):
        data[place + flags] |= 1
    (tree / "secret.zip").write_bytes(data)
    assert "b/1.png: this is refused\n  received  it is encrypted" in told("secret.zip")[1][0]


def test_names_in_zips(tree):
    """Those of Python say that they are UTF-8, Info-ZIP's do not; what is neither stays as it is."""
    with zipfile.ZipFile("names.zip", "w") as archive:
        for name in ("猫.png", "\u00fcber.png"):
            archive.writestr(name, LEFT)
    assert told("names.zip")[0] == ["names.zip/über.png", "names.zip/猫.png"]
    data = bytearray((tree / "names.zip").read_bytes())
    for place in (data.find(b"PK\x03\x04") + 7, data.find(b"PK\x01\x02") + 9):
        data[place] &= ~8
    (tree / "silent.zip").write_bytes(data)
    assert told("silent.zip")[0] == ["silent.zip/über.png", "silent.zip/猫.png"]
    (tree / "odd.zip").write_bytes(data.replace("猫".encode(), b"\xe7\x8c."))
    assert told("odd.zip")[0][-1].endswith("..png")


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (("Straße.png", "señor.png", "Ñandú.png"), "cp437"),
        (("飞机.png", "汽车/鸟.png", "plain.png", "朱镕基.png"), "gbk"),  # 镕 is not in GB2312
        (("é.png", "猫.png", "plain.png"), "utf-8"),
    ],
)
def test_names_in_zips_that_do_not_say_their_encoding(tree, names, encoding):
    """UTF-8 as Info-ZIP has them, GBK as Windows in Chinese has them, else DOS's code page."""
    written = [name.encode(encoding) for name in names]
    fillers = [f"{i}" * len(name) for i, name in enumerate(written)]
    with zipfile.ZipFile("silent.zip", "w") as archive:
        for filler in fillers:
            archive.writestr(filler, LEFT)
    data = (tree / "silent.zip").read_bytes()
    for filler, name in zip(fillers, written, strict=True):
        assert data.count(filler.encode()) == 2
        data = data.replace(filler.encode(), name)
    (tree / "silent.zip").write_bytes(data)
    assert sorted(told("silent.zip")[0]) == sorted(f"silent.zip/{name}" for name in names)
    assert {name for name, *_ in members(tree / "silent.zip")} == set(names)


def members(path):
    with path.open("rb") as file:
        return [*archives.zip_members(path, file)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.sampled_from(["zip", "tar", "tar.gz"]), st.data())
def test_damaged_archives_raise_nothing(tree, ending, draw):
    data = bytearray((tree / f"tree.{ending}").read_bytes())
    for place in draw.draw(st.lists(st.integers(0, min(len(data) - 1, 4000)), min_size=1, max_size=4)):
        data[place] = draw.draw(st.integers(0, 255))
    (tree / f"bad.{ending}").write_bytes(data[: draw.draw(st.integers(0, len(data)))])
    names, errors = told(f"bad.{ending}")
    assert len(names) + len(errors) <= 4
    assert names or errors


def test_a_pipe_is_read_as_it_comes(run, tree):
    """What was asked is answered before the list of paths ends."""
    code = (
        "import juanji.models, juanji.train.evaluation, sys; sys.path.insert(0, sys.argv[1]);"
        "from test_cli_predict import net; juanji.models.create = net; juanji.train.evaluation.BATCH = 1;"
        "from juanji.cli import main; main(['predict', 'run', '-', '--list', '--csv'])"
    )
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        stuck = threading.Timer(60, process.kill)
        stuck.start()
        process.stdin.write(b"tree/a.png\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"image,class_1")
        assert process.stdout.readline().startswith(b"tree/a.png,right,")
        process.stdin.close()
        assert process.wait() == 0
        stuck.cancel()
