"""Folders and archives as tables of files: what is in them, what is refused, reading by several threads."""

import contextlib
import gzip
import io
import os
import stat
import struct
import sys
import tarfile
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hostile import only_about
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from juanji.data import archives, source
from juanji.data.archives import Archive
from juanji.data.layout import in_folders
from juanji.data.source import Folder, Names, top_folder
from juanji.errors import DataError

TREE = {"b/2.png": b"two", "b/10.png": b"ten" * 500, "a-c/x.png": b"dash", "a/ä ö.png": b"umlaut", "top.txt": b"text"}
HIDDEN = {".DS_Store": b"x", "a/.hidden.png": b"x", "__MACOSX/a/x.png": b"x", "b/Thumbs.db": b"x"}
ENDINGS = ("zip", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz")


pytestmark = pytest.mark.usefixtures("own_cache")


def write_tree(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def pack(path, files, links=()):
    """An archive of the kind its name says."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content, zipfile.ZIP_STORED if len(content) < 5 else zipfile.ZIP_DEFLATED)
            for name, to in links:
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(entry, to)
        return path
    mode = {"tgz": "w:gz", "tar": "w"}.get(path.suffix[1:], f"w:{path.suffix[1:]}")
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for name, to in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, to
            archive.addfile(entry)
    return path


@pytest.mark.parametrize("kind", ["folder", *ENDINGS])
def test_every_source_is_the_same_sorted_table(tmp_path, kind):
    files = {**TREE, **HIDDEN}
    if kind == "folder":
        found = Folder(write_tree(tmp_path / "data", files))
    else:
        found = Archive(pack(tmp_path / f"data.{kind}", files))
    names = list(found.files.names)
    assert names == ["a/ä ö.png", "a-c/x.png", "b/10.png", "b/2.png", "top.txt"]
    assert [found.read(i) for i in range(5)] == [TREE[name] for name in names]
    assert found.files.sizes.tolist() == [len(TREE[name]) for name in names]
    assert found.folders == ("a", "a-c", "b")
    assert found.label(3).endswith(os.path.join("", "b/2.png"))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives_are_read_from_several_threads_at_once(tmp_path, kind):
    rng = np.random.default_rng(0)
    files = {f"c/{i}.png": rng.bytes(int(size)) for i, size in enumerate(rng.integers(1, 20_000, 60))}
    found = Archive(pack(tmp_path / f"x.{kind}", files))
    places = [*range(60)] * 5
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(found.read, places))
    assert contents == [files[found.files.names[i]] for i in places]


def test_names_take_a_buffer_and_are_a_sequence():
    words = ["", "ä", "\udcff", "a/b", "x" * 300]
    names = Names.of(words)
    assert [*names] == words
    assert [names[i] for i in range(-5, 5)] == words + words
    assert names[1:4] == words[1:4]
    with pytest.raises(IndexError):
        _ = names[5]
    assert len(names.text) == 2 + 1 + 3 + 300


def test_the_identity_follows_names_sizes_and_times(tmp_path):
    root = write_tree(tmp_path / "one", TREE)
    before = Folder(root).identity
    root.rename(tmp_path / "two")
    root = tmp_path / "two"
    assert Folder(root).identity == before
    os.utime(root / "b/2.png", ns=(1, 1))
    assert Folder(root).identity != before


def test_the_identity_of_a_tar_follows_its_own_time(tmp_path):
    """Its files have no checksums: one of the same size may have been put in another's place."""
    path = pack(tmp_path / "x.tar.gz", {"a/1.png": b"one"})
    before = Archive(path).identity
    assert Archive(path).identity == before
    pack(path, {"a/1.png": b"two"})
    os.utime(path, ns=(7, 7))
    assert Archive(path).identity != before


def test_the_identity_of_a_zip_follows_its_content(tmp_path):
    before = Archive(pack(tmp_path / "x.zip", TREE)).identity
    assert Archive(pack(tmp_path / "y.zip", TREE)).identity == before
    assert Archive(pack(tmp_path / "z.zip", {**TREE, "b/2.png": b"tvo"})).identity != before


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
def test_sizes_of_images_are_found_in_their_first_bytes(tmp_path, monkeypatch, kind):
    rng = np.random.default_rng(0)
    files = {}
    for i, options in enumerate([{}, {"icc_profile": rng.bytes(100_000)}]):  # of the second they stand far behind
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (300, 200, 3)).astype(np.uint8)).save(
            buffer, "jpeg", quality=100, **options
        )
        files[f"a/{i}.jpg"] = buffer.getvalue()
    found = (
        Folder(write_tree(tmp_path / "x", files)) if kind == "folder" else Archive(pack(tmp_path / f"x.{kind}", files))
    )
    whole, read = [], type(found).read
    monkeypatch.setattr(type(found), "read", lambda self, i: whole.append(i) or read(self, i))
    samples = in_folders("x", found).samples
    assert [samples.header(i) for i in range(2)] == [(300, 200, "RGB")] * 2
    assert whole == ([] if kind == "folder" else [1])


@pytest.mark.parametrize(
    ("files", "top"),
    [
        (["x/train/a/1.png", "x/test/a/1.png"], "x/"),
        (["x/a/1.png", "x/b/1.png"], "x/"),
        (["cats/1.png", "cats/2.png"], ""),
        (["train/a/1.png", "train/b/1.png"], ""),
        (["x/a/1.png", "y/b/1.png"], ""),
        ([], ""),
    ],
)
def test_one_folder_that_holds_all_is_seen_through(files, top):
    assert top_folder(files, ("train", "test")) == top


# What is refused.

NAMES = ["../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "C:\\x.png", "a\\..\\..\\x.png", "..\\x.png"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_out_of_the_archive(tmp_path, kind, name):
    with pytest.raises(DataError, match=rf"bad\.{kind}: .*x\.png.*this is refused[\s\S]*leads out of the archive"):
        Archive(pack(tmp_path / f"bad.{kind}", {"a/1.png": b"1", name: b"2"}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_are_there_twice(tmp_path, kind):
    path = pack(tmp_path / f"x.{kind}", {"a/1.png": b"1", "a/./1.png": b"2"})
    with pytest.raises(DataError, match=r"1\.png: this is refused[\s\S]*a name that is there twice"):
        Archive(path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("links", "what"),
    [
        ([("a/l.png", "../../out.png")], "a link out of the archive, to ../out.png"),
        ([("a/l.png", "/etc/passwd")], "a link out of the archive, to /etc/passwd"),
        ([("a/l.png", "m.png"), ("a/m.png", "l.png")], "a link that leads round in a circle"),
        ([("a/l.png", "l.png")], "a link that leads round in a circle"),
        ([("a/l.png", "gone.png")], "a link to no file of the archive, a/gone.png"),
    ],
)
def test_links_in_archives_that_are_refused(tmp_path, kind, links, what):
    with pytest.raises(DataError, match=rf"\.png: this is refused[\s\S]*{what}"):
        Archive(pack(tmp_path / f"x.{kind}", {"a/1.png": b"1"}, links))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.xz"])
def test_links_in_archives_that_stay_inside_are_followed(tmp_path, kind):
    links = [("b/l.png", "../a/m.png"), ("a/m.png", "1.png")]
    found = Archive(pack(tmp_path / f"x.{kind}", {"a/1.png": b"first"}, links))
    assert {name: found.read(i) for i, name in enumerate(found.files.names)} == dict.fromkeys(
        ["a/1.png", "a/m.png", "b/l.png"], b"first"
    )


@pytest.fixture
def linked(tmp_path):
    """A folder, and what makes links in it; skips where there are none."""
    root = write_tree(tmp_path / "data", {"a/1.png": b"1", "b/2.png": b"2"})

    def link(name, to):
        try:
            (root / name).symlink_to(to)
        except OSError:
            pytest.skip("no links here")

    return root, link


@pytest.mark.parametrize(
    ("name", "to", "what"),
    [
        ("a/loop", "..", "a link that leads round in a circle"),
        ("a/self", "self", "a link that leads round in a circle"),
        ("a/out.png", "../../secret.png", "a link out of the data"),
        ("a/out", "../..", "a link out of the data"),
        ("a/gone.png", "nothing.png", "a link to something that is not there"),
    ],
)
def test_links_in_folders_that_are_refused(tmp_path, linked, name, to, what):
    (tmp_path / "secret.png").write_bytes(b"secret")
    root, link = linked
    link(name, to)
    with pytest.raises(DataError, match=rf"{name.split('/')[1]}: this is refused[\s\S]*{what}[\s\S]*a copy"):
        Folder(root)


def test_folders_that_are_nested_without_end(tmp_path):
    write_tree(tmp_path, {"d/" * 99 + "1.png": b"1"})
    assert len(Folder(tmp_path).files) == 1
    write_tree(tmp_path, {"d/" * 101 + "1.png": b"1"})
    with pytest.raises(DataError, match=r"this is refused[\s\S]*more than 100 folders deep"):
        Folder(tmp_path)


def test_places_in_a_zip_that_no_file_has(tmp_path):
    """Where an entry of 64 bits says that its bytes lie beyond what any number here can say."""
    path = pack(tmp_path / "x.zip", {"a/1.png": b"1"})
    raw = path.read_bytes()
    start = raw.find(b"PK\1\2")
    extra = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    entry = bytearray(raw[start : raw.find(b"PK\5\6")])
    entry[30:32], entry[42:46] = struct.pack("<H", len(extra)), b"\xff" * 4
    end = bytearray(raw[raw.find(b"PK\5\6") :])
    end[12:16] = struct.pack("<I", len(entry) + len(extra))
    path.write_bytes(raw[:start] + entry + extra + end)
    with pytest.raises(DataError, match=r"x\.zip: the archive is damaged"):
        Archive(path)


def test_links_in_folders_that_lead_to_each_other(linked):
    root, link = linked
    link("a/to_b", "../b")
    link("b/to_a", "../a")
    with pytest.raises(DataError, match="round in a circle"):
        Folder(root)


def test_links_in_folders_that_stay_inside_are_followed(linked):
    root, link = linked
    link("c", "a")
    link("b/3.png", "../a/1.png")
    found = Folder(root)
    assert [*found.files.names] == ["a/1.png", "b/2.png", "b/3.png", "c/1.png"]
    assert found.read(2) == found.read(3) == b"1"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_no_file_is_passed_over(tmp_path):
    write_tree(tmp_path, {"a/1.png": b"1"})
    os.mkfifo(tmp_path / "a/pipe.png")
    assert [*Folder(tmp_path).files.names] == ["a/1.png"]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="everything may be read")
def test_folders_that_may_not_be_read(tmp_path):
    write_tree(tmp_path, {"a/1.png": b"1"})
    (tmp_path / "a").chmod(0)
    with pytest.raises(DataError, match=r"a: the file cannot be read[\s\S]*ermission"):
        Folder(tmp_path)


def test_files_that_went_away_and_files_too_large(tmp_path, monkeypatch):
    found = Folder(write_tree(tmp_path, {"a/1.png": b"12345", "a/2.png": b"2"}))
    (tmp_path / "a/2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png: the file cannot be read[\s\S]*check the path"):
        found.read(1)
    monkeypatch.setattr(source, "LARGEST", 4)
    with pytest.raises(DataError, match=r"1\.png: the file is too large to be an image[\s\S]*5 bytes[\s\S]*at most 4"):
        found.read(0)
    monkeypatch.setattr(archives, "LARGEST", 4)
    with pytest.raises(DataError, match=r"1\.png: the file is too large to be an image"):
        Archive(pack(tmp_path / "x.zip", {"a/1.png": b"12345"})).read(0)


def test_encrypted_and_strangely_compressed_members(tmp_path):
    path = pack(tmp_path / "x.zip", {"a/1.png": b"content"})
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"PK\1\2") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"1\.png: this is refused[\s\S]*encrypted"):
        Archive(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/1.png", b"content")
    with pytest.raises(DataError, match=r"1\.png: this is refused[\s\S]*method 12, not stored or deflated"):
        Archive(path)


@pytest.mark.parametrize("kind", [kind for kind in ENDINGS if kind != "tar"])  # as large as what it stands for
def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "ALWAYS", 10_000)
    path = pack(tmp_path / f"bomb.{kind}", {"a/1.png": bytes(4_000_000), "a/2.png": b"2"})
    with pytest.raises(DataError, match=rf"bomb\.{kind}: the archive stands for too much[\s\S]*100 times its own size"):
        Archive(path)


@pytest.mark.parametrize("declared", [3, 100_000_000])
def test_a_member_never_becomes_larger_than_the_archive_says(tmp_path, declared):
    path = pack(tmp_path / "x.zip", {"a/1.png": b"content of the first", "a/2.png": b"second"})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.find(b"PK\1\2") + 24, declared)
    path.write_bytes(raw)
    found = Archive(path)
    with pytest.raises(DataError, match=r"1\.png: the archive is damaged[\s\S]*its size is not the"):
        found.read(0)
    assert found.read(1) == b"second"


def test_damaged_members_are_told_when_they_are_read(tmp_path):
    path = pack(tmp_path / "x.zip", {"a/1.png": zlib.compress(bytes(500)), "a/2.png": b"second", "a/3.png": b"abc"})
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"abc")] ^= 1
    raw[raw.find(b"PK\3\4", 10)] ^= 1  # the header of the second
    path.write_bytes(raw)
    found = Archive(path)
    found.read(0)
    with pytest.raises(DataError, match=r"2\.png: the archive is damaged[\s\S]*no header"):
        found.read(1)
    with pytest.raises(DataError, match=r"3\.png: the archive is damaged[\s\S]*checksum"):
        found.read(2)


@pytest.mark.parametrize("kind", ENDINGS)
def test_what_is_no_archive(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(b"not an archive, whatever its name says" * 20)
    with pytest.raises(DataError, match=rf"x\.{kind}: the archive is damaged, or not of the kind its name says"):
        Archive(path)


@pytest.mark.parametrize("kind", ENDINGS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_damage_is_a_data_error_and_nothing_else(tmp_path_factory, kind, data):
    """Cut, and with bytes changed: what can be read is read, everything else is a DataError that names the archive."""
    folder = tmp_path_factory.mktemp("fuzz")
    path = pack(folder / f"x.{kind}", {"a/1.png": b"first" * 30, "b/2.png": b"2"}, [("b/l.png", "2.png")])
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with only_about(path.name):
        found = Archive(path)
        for i in range(len(found.files)):
            assert len(found.read(i)) <= 10_000


def test_enormous_sizes_in_tar_headers(tmp_path):
    for field in (b"77777777777\0", b"\x80" + b"\xff" * 11, b"\x80\0\0\0\0\0\x7f" + b"\xff" * 5):
        for kind in (b"0", b"x", b"L", b"S"):
            entry = bytearray(tarfile.TarInfo("a/1.png").tobuf())
            entry[124:136], entry[156:157] = field, kind
            entry[148:156] = b" " * 8
            entry[148:156] = b"%06o\0 " % sum(entry)
            (tmp_path / "x.tar").write_bytes(bytes(entry) + bytes(2048))
            with pytest.raises(DataError, match=r"x\.tar"):
                Archive(tmp_path / "x.tar")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_tars_that_were_cut_wherever_that_is(tmp_path, form, compress):
    """Of tars without it, what follows their last file is blocks of zeros: one will do, as it does for GNU's tar."""
    path, buffer = tmp_path / ("x.tar" if compress is bytes else "x.tar.gz"), io.BytesIO()
    names = ["a/1.png", f"a/{'long' * 30}.png", "b/猫.png"][: 3 if form != tarfile.USTAR_FORMAT else 1]
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 700
            archive.addfile(entry, io.BytesIO(bytes(range(100)) * 7))
        end = archive.offset
    for size in (end + 512, end + 1024, len(buffer.getvalue()), end + 5 * 10240):
        path.write_bytes(compress(buffer.getvalue()[:size].ljust(size, b"\0")))
        assert len(Archive(path).files) == len(names)
    for size in [*range(1, end, 199), end - 1, end, end + 511]:
        path.write_bytes(compress(buffer.getvalue()[:size]))
        with pytest.raises(DataError, match=r"x\.tar.*: the archive is damaged"):
            Archive(path)
    with pytest.raises(DataError, match="received  it ends in the middle, before the block of zeros at its end"):
        Archive(path)
    path.write_bytes(compress(buffer.getvalue()[:end] + b"x" * 1024))
    with pytest.raises(DataError, match=f"received  there is no header at byte {end:,}"):
        Archive(path)


def test_files_with_holes_in_tars(tmp_path):
    entry = tarfile.TarInfo("a/1.png")
    entry.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999"}
    entry.size = 512
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(entry, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    with pytest.raises(DataError, match=r"1\.png: this is refused\n  received  a file with holes"):
        Archive(tmp_path / "x.tar")


class Entry:
    """A directory entry that was never on a disk."""

    __slots__ = ("folder", "name")

    def __init__(self, name, folder):
        self.name, self.folder = name, folder

    path = property(lambda self: self.name)
    is_symlink = staticmethod(lambda: False)

    def is_dir(self):
        return self.folder

    def is_file(self):
        return not self.folder

    def stat(self):
        return SimpleNamespace(st_size=1234, st_mtime_ns=5)


@pytest.mark.slow
def test_a_million_files_take_bounded_memory(monkeypatch, tmp_path):
    """Ten classes of 100,000: while they are found, and afterwards. A list of paths alone would take 100 MB."""

    @contextlib.contextmanager
    def scandir(folder):
        if folder == str(tmp_path):
            yield (Entry(f"class{i}", True) for i in range(10))
        else:
            yield (Entry(f"photograph{i:07}.jpg", False) for i in reversed(range(100_000)))

    monkeypatch.setattr(os, "scandir", scandir)
    tracemalloc.start()
    try:
        found = in_folders("data", Folder(tmp_path))
        kept, peak = (size / 1e6 for size in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert len(found.y) == 1_000_000
    assert found.samples.name(999_999).endswith("class9/photograph0099999.jpg")
    assert found.classes[9] == "class9"
    assert kept < 100
    assert peak < 160


def test_classes_in_zips_whose_names_are_utf_8_without_saying_so(tmp_path):
    """As Info-ZIP writes them."""
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("猫/1.png", "über/1.png"):
            archive.writestr(name, b"x")
    data = bytearray(path.read_bytes())
    for header, flags in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        place = data.find(header)
        while place >= 0:
            data[place + flags] &= ~8
            place = data.find(header, place + 1)
    path.write_bytes(data)
    assert list(Archive(path).files.names) == ["über/1.png", "猫/1.png"]
