"""What folders, tables and files of arrays mean: classes, parts, labels."""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import only_about
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from juanji.data import check, find, load, survey
from juanji.data.arrays import CIFAR, in_cifar, in_idx, in_npz
from juanji.data.labelled import TEST, TRAIN, VAL
from juanji.data.tables import in_table
from juanji.errors import DataError, UnknownNameError

pytestmark = pytest.mark.usefixtures("own_cache")


def png(value=0, size=(4, 4), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def write_tree(root, *names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(i))
    return root


def shown(found):
    """Name, class and part of each image."""
    names = [found.samples.name(i) for i in range(len(found.samples))]
    parts = ["·"] * len(names) if found.part is None else ["tvT"[part] for part in found.part]
    return {
        f"{part}:{found.classes[y]}": name.replace("\\", "/").split("/")[-1]
        for name, y, part in zip(names, found.y, parts, strict=True)
    }


# Folders.


def test_a_folder_for_each_class(tmp_path):
    found = find(write_tree(tmp_path, "dog/1.png", "cat/deep/er/2.JPG", "notes.txt", "stray.png", "cat/read.me"))
    assert found.classes == ("cat", "dog")
    assert shown(found) == {"·:cat": "2.JPG", "·:dog": "1.png"}
    assert [*found.strays] == ["stray.png"]
    assert [*found.foreign] == ["cat/read.me", "notes.txt"]
    assert found.y.dtype == np.int64


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_a_folder_for_each_part(tmp_path, val):
    names = ["train/a/1.png", "train/b/2.png", f"{val}/a/3.png", f"{val}/b/4.png", "test/a/5.png", "test/b/6.png"]
    found = find(write_tree(tmp_path, *names))
    assert found.classes == ("a", "b")
    assert shown(found) == {
        "t:a": "1.png", "t:b": "2.png", "v:a": "3.png", "v:b": "4.png", "T:a": "5.png", "T:b": "6.png",
    }  # fmt: skip


def test_a_top_folder_is_seen_through_in_folders_and_archives(tmp_path):
    write_tree(tmp_path / "data", "set/train/a/1.png", "set/train/b/2.png", "set/test/a/3.png", "set/test/b/4.png")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive, tarfile.open(tmp_path / "x.tar.gz", "w:gz") as packed:
        for path in sorted((tmp_path / "data").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "data"))
            packed.add(path, path.relative_to(tmp_path / "data"), recursive=False)
    for name in ("data", "x.zip", "x.tar.gz"):
        found = find(tmp_path / name)
        assert shown(found) == {"t:a": "1.png", "t:b": "2.png", "T:a": "3.png", "T:b": "4.png"}
        assert found.empty == ()


def test_classes_may_be_called_like_parts(tmp_path):
    """Photographs of vehicles: a train is a class where its images lie directly in its folder."""
    found = find(write_tree(tmp_path, "train/1.png", "bus/2.png", "test/3.png"))
    assert found.classes == ("bus", "test", "train")
    assert found.part is None


def test_parts_without_one_to_train_on(tmp_path):
    found = find(write_tree(tmp_path, "test/a/1.png", "test/b/2.png"))
    assert shown(found) == {"T:a": "1.png", "T:b": "2.png"}
    with pytest.raises(DataError, match=r"classes without an image to train on[\s\S]*a, b"):
        load(tmp_path, 4)


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    assert find(write_tree(tmp_path / "n", "10/1.png", "9/1.png", "-1/1.png")).classes == ("-1", "9", "10")
    assert find(write_tree(tmp_path / "w", "10/1.png", "9/1.png", "x/1.png")).classes == ("10", "9", "x")


@pytest.mark.parametrize("form", ["", "train/", "top/", "top/train/"])
def test_empty_classes_are_known(tmp_path, form):
    write_tree(tmp_path, f"{form}a/1.png", f"{form}b/1.png")
    (tmp_path / form / "c").mkdir()
    assert find(tmp_path).empty == ("c",)


@pytest.mark.parametrize("extra", ["extra/a/1.png", "extra/1.png", "test/1.png"])
def test_a_folder_beside_the_parts_that_is_none(tmp_path, extra):
    write_tree(tmp_path, "train/a/1.png", "train/b/1.png", extra)
    folder = extra.split("/")[0]
    with pytest.raises(DataError, match=rf"a folder beside train holds images[\s\S]*{folder}[\s\S]*take {folder} away"):
        find(tmp_path)


def test_classes_that_are_longer_numbers_than_python_reads(tmp_path):
    write_tree(tmp_path, "1.png", "2.png")
    (tmp_path / "x.csv").write_text(f"1.png,{'1' * 5000}\n2.png,2\n")
    assert in_table(tmp_path / "x.csv").classes == ("2", "1" * 5000)


def test_folders_without_labelled_images(tmp_path):
    with pytest.raises(DataError, match=r"there are no labelled images[\s\S]*no files[\s\S]*a folder for each class"):
        find(tmp_path)
    write_tree(tmp_path, "1.png", "2.png", "labels.csv")
    with pytest.raises(DataError, match=r"2 images in no folder, 1 files that are no images[\s\S]*labels\.csv says"):
        find(tmp_path)


# What is no data.


def test_names_that_stand_for_nothing(tmp_path):
    with pytest.raises(UnknownNameError, match=r"no dataset named 'mnits'[\s\S]*fashion-mnist[\s\S]*or the path of"):
        find("mnits")
    with pytest.raises(DataError, match=r"photos/mine: there is no such file or folder"):
        find("photos/mine")
    (tmp_path / "x.doc").touch()
    with pytest.raises(DataError, match=r"x\.doc: files of this kind are not read[\s\S]*\.npz[\s\S]*or a table"):
        find(tmp_path / "x.doc")


def test_a_path_is_never_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "digits", "a/1.png", "b/2.png")
    assert len(find(Path("digits")).y) == len(find("./digits").y) == 2
    assert len(find("digits").y) == 1797


def test_built_in_digits_are_found():
    found = find("digits")
    assert (len(found.y), int((found.part == TEST).sum()), len(found.classes)) == (1797, 596, 10)


# Tables.

TABLE_ROWS = [("a/1.png", "cat", "train"), ("a/2.png", "dog", "train"), ("b/3.png", "cat", "test")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("heading", [None, ("path", "label", "split"), ("Image", "Class", "Set"), ("a", "b", "split")])
def test_tables_with_parts(tmp_path, delimiter, heading):
    write_tree(tmp_path, *(row[0] for row in TABLE_ROWS))
    rows = [*([heading] if heading else []), *TABLE_ROWS]
    path = tmp_path / "labels.csv"
    path.write_text("\ufeff" + "\r\n".join(delimiter.join(row) for row in rows) + "\r\n\r\n", encoding="utf-8")
    found = find(path)
    assert shown(found) == {"t:cat": "1.png", "t:dog": "2.png", "T:cat": "3.png"}


def test_a_table_that_is_not_utf_8(tmp_path):
    (tmp_path / "x.csv").write_bytes("1.png,鸟\n".encode("gbk"))
    told = r"x\.csv: the table cannot be read\n  received  bytes that are no UTF-8: .*\n  rule      UTF-8\n  fix  "
    with pytest.raises(DataError, match=told):
        find(tmp_path / "x.csv")


def test_columns_are_found_by_their_headings(tmp_path):
    write_tree(tmp_path, "1.png", "2.png")
    (tmp_path / "x.csv").write_text('number,label,file\n1,"a, quoted",1.png\n2,b,2.png\n')
    found = in_table(tmp_path / "x.csv")
    assert found.classes == ("a, quoted", "b")
    assert found.part is None
    assert found.samples.header(0) == (4, 4, "RGB")


def test_a_table_without_heading_and_paths_of_any_kind(tmp_path):
    write_tree(tmp_path, "1.png", "deep/2.png")
    (tmp_path / "deep/x.csv").write_text(f"..\\1.png,a\n{tmp_path / 'deep/2.png'},b\n")
    assert load(tmp_path / "deep/x.csv").train.x.shape == (2, 4, 4, 3)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "line 1: no row"),
        ("path,label\n", "line 1: no row"),
        ("1.png\n", r"line 1: \['1.png'\]"),
        ("1.png,a\n1.png\n", r"line 2: \['1.png'\]"),
        ("1.png,a\n,b\n", "line 2"),
        ("1.png,a\n2.png,\n", "line 2"),
        ("1.png,a\n1.png,b\n", "line 2: 1.png a second time"),
        ("path,label,split\n1.png,a,both\n", "line 2: part 'both'"),
        ("path,label\n1.png,a\n./1.png,b\n", "line 3: ./1.png a second time"),
        ('1.png,"a\n', "unexpected end of data"),
        ("1.png," + "a" * 200_000, "field larger than field limit"),
    ],
)
def test_tables_that_are_none(tmp_path, text, what):
    write_tree(tmp_path, "1.png", "2.png")
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=rf"x\.csv: this is not a table of image files and labels[\s\S]*{what}"):
        in_table(tmp_path / "x.csv")


def test_tables_of_files_that_are_not_there(tmp_path):
    (tmp_path / "x.csv").write_text("1.png,a\n2.png,b\n3.png,a\n4.png,b\n5.png,b\n")
    for name in "245":
        Image.fromarray(np.full((4, 4), 40 * int(name), np.uint8)).save(tmp_path / f"{name}.png")
    missing = (
        r"2 of the images cannot be read\n  received  \S*\d\.png: the file cannot be read: No such[\s\S]*\d\.png: the"
    )
    with pytest.raises(DataError, match=missing):
        load(tmp_path / "x.csv", 4)


@settings(max_examples=80, deadline=None)
@given(content=st.one_of(st.binary(max_size=300), st.text(alphabet='1.png,;\t"\n\r\0ab', max_size=60).map(str.encode)))
def test_any_bytes_as_a_table(tmp_path_factory, content):
    path = write_tree(tmp_path_factory.mktemp("fuzz"), "1.png") / "x.csv"
    path.write_bytes(content)
    with only_about(str(path.parent)):
        in_table(path)


# Arrays.


def arrays(n=6, shape=(5, 4, 3), dtype=np.uint8):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, *shape)).astype(np.uint8)
    return (x if dtype == np.uint8 else (x / 255).astype(dtype)), np.arange(n) % 2


@pytest.mark.parametrize(
    "keys", [("x", "y", "x_test", "y_test"), ("x_train", "y_train", "x_val", "y_val"),
             ("train_images", "train_labels", "test_images", "test_labels")]
)  # fmt: skip
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_files_of_numpy(tmp_path, keys, save):
    x, y = arrays()
    save(tmp_path / "d.npz", **dict(zip(keys, (x, y[:, None], x[:2], y[:2]), strict=True)))
    found = find(tmp_path / "d.npz")
    assert np.array_equal(found.samples.x, np.concatenate([x, x[:2]]))
    assert found.part.tolist() == [TRAIN] * 6 + [VAL if "x_val" in keys else TEST] * 2
    assert found.y.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]


def test_arrays_of_other_kinds(tmp_path):
    x, y = arrays(dtype=np.float64)
    names = np.array(["dog", "cat"])
    np.savez(tmp_path / "d.npz", x=np.asfortranarray(x), y=names[y])
    found = in_npz(tmp_path / "d.npz")
    assert found.samples.x.dtype == np.float32
    assert np.allclose(found.samples.x, x)
    assert found.classes == ("cat", "dog")
    assert found.y.tolist() == [1, 0] * 3
    np.savez(tmp_path / "g.npz", x=arrays(shape=(5, 4))[0].astype(np.int64), y=y + 5, classes=[*"abcdefg"])
    found = in_npz(tmp_path / "g.npz")
    assert (found.samples.x.shape, found.classes, found.y.max()) == ((6, 5, 4, 1), tuple("abcdefg"), 6)
    np.savez(tmp_path / "b.npz", x=arrays(shape=(5, 4))[0] > 128, y=y)
    assert set(np.unique(in_npz(tmp_path / "b.npz").samples.x)) == {0, 255}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"a": [1]}, "arrays a"),
        ({"x": np.zeros((2, 3)), "y": [0, 1]}, r"images \[2, 3\]"),
        ({"x": np.zeros((2, 3, 8, 8)), "y": [0, 1]}, "channels last"),
        ({"x": np.zeros((2, 4, 4)), "y": [0, 1, 1]}, "2 images and 3 labels"),
        ({"x": np.full((2, 4, 4), 1.5), "y": [0, 1]}, "float64 from 1.5 to 1.5"),
        ({"x": np.full((2, 4, 4), np.nan), "y": [0, 1]}, "float64 from nan"),
        ({"x": np.full((2, 4, 4), 256), "y": [0, 1]}, "int64 from 256 to 256"),
        ({"x": np.zeros((2, 4, 4)), "y": [0.5, 1]}, "labels of float64"),
        ({"x": np.zeros((2, 4, 4)), "y": [0, 1], "classes": ["a"]}, "labels from 0 to 1"),
        ({"x": np.zeros((0, 4, 4)), "y": np.zeros(0, int)}, "no image to train on"),
        ({"x": np.zeros((2, 4, 4)), "y": [0, 1], "x_test": np.zeros((2, 5, 4)), "y_test": [0, 1]}, "one size"),
        ({"x": np.array([None, 1]), "y": [0, 1]}, "declares object"),
    ],
)
def test_arrays_that_are_no_labelled_images(tmp_path, content, what):
    np.savez(tmp_path / "d.npz", **content)
    with pytest.raises(DataError, match=rf"d\.npz: the file is damaged, or not of this kind[\s\S]*{what}"):
        in_npz(tmp_path / "d.npz")


def test_arrays_that_declare_more_than_there_is(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 8, 8)}"
    header += b" " * (128 - 10 - len(header) - 1) + b"\n"
    content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", content)
    with pytest.raises(DataError, match=r"d\.npz[\s\S]*x\.npy declares uint8\[1000000000000, 8, 8\]"):
        in_npz(tmp_path / "d.npz")
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content + bytes(100_000))
        archive.writestr("y.npy", content)
    raw = bytearray((tmp_path / "d.npz").read_bytes())
    struct.pack_into("<I", raw, raw.find(b"PK\1\2") + 24, 2_000_000_000)
    (tmp_path / "d.npz").write_bytes(raw)
    with pytest.raises(DataError, match=r"d\.npz[\s\S]*x\.npy stands for 2,000,000,000 bytes"):
        in_npz(tmp_path / "d.npz")


def idx(values):
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dash", ["-", "."])
def test_idx_files_as_mnist_has_them(tmp_path, packed, dash):
    x, y = arrays(8, (5, 4))
    for prefix, some in (("train-", slice(6)), ("t10k-", slice(6, 8))):
        for name, values in (("images-idx3-ubyte", x[some]), ("labels-idx1-ubyte", y[some].astype(np.uint8))):
            path = tmp_path / (prefix + name.replace("-idx", f"{dash}idx") + (".gz" if packed else ""))
            path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    found = find(tmp_path)
    assert np.array_equal(found.samples.x[..., 0], x)
    assert found.part.tolist() == [TRAIN] * 6 + [TEST] * 2
    one = find(next(tmp_path.glob("t10k*images*")))
    assert np.array_equal(one.samples.x[..., 0], x[6:])
    assert one.part is None


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "it begins with nothing"),
        (b"\0\0\x0d\3" + bytes(12), "it begins with 00 00 0d 03"),
        (b"\0\0\x08\3" + b"\xff" * 12, "more than it can hold"),
        (b"\0\0\x08\3" + struct.pack(">3I", 2, 2, 2) + bytes(7), "more than it can hold|more than is there"),
        (b"\0\0\x08\3" + struct.pack(">3I", 2, 2, 2) + bytes(9), "less than is there"),
    ],
)
def test_idx_files_that_are_damaged(tmp_path, content, what):
    (tmp_path / "labels-idx1-ubyte").write_bytes(idx(np.zeros(2, np.uint8)))
    for name, written in (("images-idx3-ubyte", content), ("images-idx3-ubyte.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(written)
        with pytest.raises(DataError, match=rf"{name}: the file is damaged, or not of this kind[\s\S]*({what})"):
            in_idx(tmp_path / name)


def test_idx_files_without_labels(tmp_path):
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(np.zeros((2, 2, 2), np.uint8)))
    with pytest.raises(DataError, match=r"images-idx3-ubyte: the labels of these images are missing[\s\S]*labels-idx1"):
        in_idx(tmp_path)


def test_batches_of_cifar(tmp_path):
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8) for name in CIFAR}
    for name, x in images.items():
        records = [bytes([i * 4]) + image.transpose(2, 0, 1).tobytes() for i, image in enumerate(x)]
        (tmp_path / name).write_bytes(b"".join(records))
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for name in CIFAR:
            archive.add(tmp_path / name, f"cifar-10-batches-bin/{name}")
    for path in (tmp_path, tmp_path / "cifar-10-binary.tar.gz"):
        found = in_cifar(path)
        assert np.array_equal(found.samples.x, np.concatenate([images[name] for name in CIFAR]))
        assert found.part.tolist() == [TRAIN] * 15 + [TEST] * 3
        assert found.y.tolist() == [0, 4, 8] * 6
        assert found.classes[8] == "ship"
    (tmp_path / CIFAR[2]).write_bytes(bytes(3072))
    with pytest.raises(DataError, match=r"the file is damaged[\s\S]*bytes[\s\S]*five batches"):
        in_cifar(tmp_path)
    (tmp_path / CIFAR[5]).unlink()
    with pytest.raises(DataError, match=r"no test_batch\.bin"):
        in_cifar(tmp_path)


@pytest.mark.parametrize("kind", ["d.npz", "images-idx3-ubyte", "images-idx3-ubyte.gz"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_arrays_are_a_data_error_and_nothing_else(tmp_path_factory, kind, data):
    path = tmp_path_factory.mktemp("fuzz") / kind
    x, y = arrays(4, (3, 3))
    (path.parent / "labels-idx1-ubyte").write_bytes(idx(y.astype(np.uint8)))
    if kind == "d.npz":
        np.savez(path, x=x, y=y)
    else:
        path.write_bytes(gzip.compress(idx(x)) if kind.endswith("gz") else idx(x))
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with only_about(str(path.parent)):
        find(path)


# A look.


def test_a_survey_counts_and_measures(tmp_path):
    for name, size, mode in [("a/1", (10, 4), "RGB"), ("a/2", (20, 8), "RGB"), ("b/3", (30, 6), "L")]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(png(9, size, mode))
    (tmp_path / "b/4.png").write_text("no image")
    seen = survey(tmp_path)
    assert (seen.images, seen.looked, seen.readable) == (4, 4, 3)
    assert seen.counts == {"all": (2, 2)}
    assert (seen.size, seen.smallest, seen.largest) == ((6, 20), (4, 10), (8, 30))
    assert seen.modes == {"RGB": 2, "L": 1}
    assert seen.channels == 3


def test_a_survey_of_parts_and_of_arrays(tmp_path):
    assert survey(write_tree(tmp_path, "train/a/1.png", "train/b/1.png", "test/a/1.png")).counts == {
        "train": (1, 1), "test": (1, 0),
    }  # fmt: skip
    digits = survey("digits")
    assert (digits.size, digits.channels, sum(digits.counts["train"])) == ((28, 28), 1, 1201)


def test_arrays_of_other_channels_keep_theirs(tmp_path):
    np.savez(tmp_path / "d.npz", x=arrays(shape=(4, 4, 5))[0], y=arrays()[1])
    assert survey(tmp_path / "d.npz").channels == load(tmp_path / "d.npz").shape[2] == 5


def test_a_survey_of_nothing_that_can_be_read(tmp_path):
    write_tree(tmp_path, "a/1.png")
    (tmp_path / "a/1.png").write_text("no image")
    with pytest.raises(DataError, match=r"none of the images can be read[\s\S]*1 looked at[\s\S]*juanji check"):
        survey(tmp_path)


RUN = ("run/config.json", "run/model.safetensors", "run/curve.png")


def test_what_is_named_by_mistake(tmp_path):
    """An image, a run's folder, a name of nothing, a folder around the class folders: each is told what to name."""
    for name in ("a/w/x/cat/1.png", "a/w/x/dog/1.png", *RUN, "1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name, "PNG")
    for name, text in (
        (
            "1.png",
            r"files of this kind are not read[\s\S]*the folder that its class folder lies in; .*predict RUN",
        ),
        ("run", r"no labelled images[\s\S]*this is the folder of a run: name the folder of its images"),
        ("a", r"there is only one class\n  received  x\n  rule      two or more\n  fix       name the folder that the"),
    ):
        with pytest.raises(DataError, match=text):
            load(tmp_path / name, 4)
    findings = {finding.kind: finding.names for finding in check(tmp_path / "a").findings}
    assert findings["nested"] == ("w/x/cat", "w/x/dog")
    with pytest.raises(UnknownNameError, match=r"named 'q'\n.*or the path of a folder or file\n  fix       check the"):
        find("q")
