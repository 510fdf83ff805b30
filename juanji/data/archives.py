"""Zip and tar archives that are read in place, from several threads. An archive is data from outside: its names may
lead elsewhere, and its sizes may lie."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import posixpath
import re
import stat
import struct
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from juanji.data.source import FOLDERS_TO_DEPTH, LARGEST, Files, Source, no_file, passed_over, refused, too_large
from juanji.errors import DataError
from juanji.kernels import cache

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, of what else there is (APPNOTE 4.3.7)
UTF8 = 0x800  # the sign that a name is in UTF-8 (APPNOTE 4.4.4, bit 11)
CP437 = "cp437"
HANZI = re.compile(rb"(?:[\x00-\x7f]|[\xb0-\xf7][\xa1-\xfe])*")  # in GB2312, rows 16 to 87
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
RATIO, ALWAYS = 100, 1 << 28  # images are compressed already: more than this stands for no honest archive of them
LONGEST_LINK = 4096
DRIVE = re.compile("[A-Za-z]:")
BLOCK = 1 << 20
HEAD = 1 << 16  # bytes in which nearly every image says its size
COMPRESSED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open, ".tgz": gzip.open, ".bz2": bz2.open, ".tbz2": bz2.open, ".xz": lzma.open, ".txz": lzma.open,
}  # fmt: skip


class Member(NamedTuple):
    """A file in an archive: where its bytes, or its header in a zip, begin; how many bytes lie there, and compressed by
    which method; its size and stamp. `link` is the name it stands for, where it is a link."""

    name: str
    start: int
    packed: int
    method: int
    size: int
    stamp: int
    link: str | None = None


class Archive(Source):
    """The files of an archive, read where they lie; of a compressed tar, from an unpacked copy without a name.

    broken  where it is given, links that lead to no file of the archive are put there by their names, with the errors
            that tell of them, and the archive is read without them

    Raises DataError, naming the archive and the file, for a name that leads out of it or is there twice, for a link
    that does or that leads round in a circle, for what is encrypted, or far smaller than what it stands for, and for
    damage.
    """

    def __init__(self, path: str | Path, broken: dict[str, DataError] | None = None) -> None:
        self.path, self.lock = Path(path), threading.Lock()
        self.zipped = self.path.suffix.lower() == ".zip"
        self.file: IO[bytes] = opened(self.path)
        weakref.finalize(self, self.file.close)
        try:
            found = list((zip_members if self.zipped else tar_members)(self.path, self.file))
            self.fill(list(sorted_out(self.path, found, broken)))
        except DataError:
            raise
        # A damaged archive can make these libraries raise anything.
        except Exception as error:
            raise damaged(self.path, error) from None
        self.folders = folders({member.name.rpartition("/")[0] for member in found})

    def fill(self, members: list[Member]) -> None:
        state = self.path.stat()
        # A zip has checksums; a tar must be told by its own time.
        self.stamp = "" if self.zipped else f"{state.st_size} {state.st_mtime_ns} "
        most = ALWAYS + RATIO * state.st_size
        if (total := sum(member.size for member in members)) > most:
            raise bomb(self.path, total, most)
        self.files = Files.of((member.name, member.size, member.stamp) for member in members)
        self.starts = np.array([member.start for member in members], np.int64)
        self.packed = np.array([member.packed for member in members], np.int64)
        self.methods = np.array([member.method for member in members], np.int8)

    def read(self, i: int) -> bytes:
        size, packed = int(self.files.sizes[i]), int(self.packed[i])
        if max(size, packed) > LARGEST:
            raise too_large(self.label(i), size)
        with self.damage_named(i):
            content = unpacked(self.bytes_of(i, packed), int(self.methods[i]), size)
            check(len(content) == size, f"its size is not the {size:,} bytes that the archive says")
            if self.zipped:
                check(zlib.crc32(content) == self.files.stamps[i], "its checksum is not that of its content")
        return content

    def head(self, i: int) -> bytes:
        with self.damage_named(i):
            return unpacked(self.bytes_of(i, min(HEAD, int(self.packed[i]))), int(self.methods[i]), HEAD)

    def bytes_of(self, i: int, size: int) -> bytes:
        """The first bytes of file i as they lie in the archive."""
        start = int(self.starts[i])
        with self.lock:
            return stored(self.file, start + header(self.file, start) if self.zipped else start, size)

    @contextlib.contextmanager
    def damage_named(self, i: int) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, zlib.error) as error:
            raise damaged(Path(self.label(i)), error) from None

    @property
    def identity(self) -> str:
        return self.stamp + super().identity


def check(fine: bool, otherwise: str) -> None:
    if not fine:
        raise ValueError(otherwise)


def damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: the archive is damaged, or not of the kind its name says",
        received=str(error)[:200] or type(error).__name__,
        rule="a whole .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz",
        fix="download or pack it again",
    )


def bomb(path: Path, size: int, most: int) -> DataError:
    return DataError(
        f"{path}: the archive stands for too much to be meant well",
        received=f"more than {size:,} bytes unpacked" if size == most else f"{size:,} bytes unpacked",
        rule=f"at most {most:,}: {RATIO} times its own size, and {ALWAYS:,}",
        fix="unpack it, and name the folder",
    )


def opened(path: Path) -> IO[bytes]:
    """The archive, ready to be read at any place; a compressed tar is unpacked first, to a file without a name."""
    try:
        if path.suffix.lower() not in COMPRESSED:
            return path.open("rb")
        with COMPRESSED[path.suffix.lower()](path) as packed:
            return spooled(path, packed)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise damaged(path, error) from None
    except OSError as error:
        raise (damaged if error.errno is None else no_file)(path, error) from None


def spooled(path: Path, packed: IO[bytes]) -> IO[bytes]:
    """What `packed` holds, in a file without a name on the disk where caches lie: temporary folders can be memory."""
    most, size = ALWAYS + RATIO * path.stat().st_size, 0
    whole = tempfile.TemporaryFile(dir=cache.safe_folder())  # noqa: SIM115
    try:
        while block := packed.read(BLOCK):
            size += len(block)
            if size > most:
                raise bomb(path, most, most)
            whole.write(block)
    except BaseException:
        whole.close()
        raise
    return whole


def zip_members(path: Path, file: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        found = archive.infolist()
    for entry, given in zip(found, written(found), strict=True):
        name = plain(path, given)
        if entry.flag_bits & 1:
            raise refused(f"{path / name}", "it is encrypted")
        if entry.compress_type not in METHODS:
            raise refused(f"{path / name}", f"it is compressed by method {entry.compress_type}, not stored or deflated")
        member = Member(name, entry.header_offset, entry.compress_size, entry.compress_type, entry.file_size, entry.CRC)
        if stat.S_ISLNK(entry.external_attr >> 16):
            member = member._replace(link=link_in_zip(file, member))
        if not entry.is_dir():
            yield member
        else:
            yield member._replace(name=f"{name}/")


def written(entries: Sequence[zipfile.ZipInfo]) -> list[str]:
    """The names in a zip as whoever made it wrote them. What does not say that it is UTF-8 zipfile takes for DOS's code
    page 437; but Info-ZIP writes UTF-8 without saying so, and Windows in Chinese GBK: all names are read as that where
    one has nothing but ASCII and the common characters, whose bytes are frames and Greek letters in 437."""
    names = [entry.filename if entry.flag_bits & UTF8 else undecoded(entry.filename) for entry in entries]
    silent = (name for name in names if isinstance(name, bytes) and decoded(name) is None)
    other = "gbk" if any(map(HANZI.fullmatch, silent)) else CP437
    return [
        name if isinstance(name, str) else decoded(name) or decoded(name, other) or name.decode(CP437) for name in names
    ]


def undecoded(name: str) -> bytes | str:
    """The bytes that zipfile took for code page 437; the name itself where it took them for something else."""
    try:
        return name.encode(CP437)
    except UnicodeError:
        return name


def decoded(name: bytes, encoding: str = "utf-8") -> str | None:
    """A name in an encoding, None where it cannot be in that."""
    try:
        return name.decode(encoding)
    except UnicodeError:
        return None


def link_in_zip(file: IO[bytes], member: Member) -> str:
    check(max(member.size, member.packed) <= LONGEST_LINK, f"{member.name}: a link of {member.size:,} bytes")
    content = stored(file, member.start + header(file, member.start), member.packed)
    return beside(member.name, unpacked(content, member.method, member.size).decode())


def beside(name: str, to: str) -> str:
    return to if to.startswith("/") else posixpath.normpath(posixpath.join(posixpath.dirname(name), to))


def tar_members(path: Path, file: IO[bytes]) -> Iterator[Member]:
    end = file.seek(0, 2)
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (entry := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # a kilobyte for each is kept there
            name = plain(path, entry.name)
            if entry.issparse():
                raise refused(f"{path / name}", "a file with holes")
            check(entry.offset_data + entry.size <= end or not entry.isreg(), f"it ends in the middle of {name}")
            member = Member(name, entry.offset_data, entry.size, zipfile.ZIP_STORED, entry.size, int(entry.mtime))
            if entry.isdir():
                yield member._replace(name=f"{name}/")
            elif entry.issym():
                yield member._replace(link=beside(name, entry.linkname))
            elif entry.islnk():
                yield member._replace(link=plain(path, entry.linkname))
            elif entry.isreg():
                yield member
    # tarfile takes whatever is no header for the end, which is a block of zeros.
    check(archive.offset + tarfile.BLOCKSIZE <= end, "it ends in the middle, before the block of zeros at its end")
    check(not any(stored(file, archive.offset, tarfile.BLOCKSIZE)), f"there is no header at byte {archive.offset:,}")


def plain(path: Path, name: str) -> str:
    """A member's name with "/" between its parts. Raises DataError for one that leads out of the archive."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or DRIVE.match(name) or "\0" in name:
        raise refused(f"{path}: {name[:200]!r}", "a name that leads out of the archive")
    return "/".join(part for part in parts if part not in ("", "."))


def folders(names: set[str]) -> tuple[str, ...]:
    """Those folders, and the ones they lie in, as far as three deep."""
    found = {"/".join(name.split("/")[: depth + 1]) for name in names for depth in range(FOLDERS_TO_DEPTH)}
    return tuple(sorted(name for name in found if name and not passed_over(name)))


def by_folder(name: str) -> list[str]:
    """A key that sorts names as a walk through folders meets them."""
    return name.split("/")


def sorted_out(path: Path, members: list[Member], broken: dict[str, DataError] | None = None) -> Iterator[Member]:
    """The files, sorted as a folder's would be, each link as the file it leads to; without those passed over."""
    by_name: dict[str, Member] = {}
    for member in members:
        if member.name.endswith("/") or not member.name:
            continue
        if member.name in by_name:
            raise refused(f"{path / member.name}", "a name that is there twice")
        by_name[member.name] = member
    chosen = sorted((name for name in by_name if not passed_over(name)), key=by_folder)
    for name in chosen:
        try:
            yield followed(path, by_name, name)._replace(name=name)
        except DataError as error:
            if broken is None:
                raise
            broken[name] = error


def followed(path: Path, by_name: dict[str, Member], name: str) -> Member:
    seen, member = {name}, by_name[name]
    while member.link is not None:
        to = member.link
        if to.startswith(("/", "../")) or to == "..":
            raise refused(f"{path / name}", f"a link out of the archive, to {to}")
        if to in seen:
            raise refused(f"{path / name}", "a link that leads round in a circle")
        if to not in by_name:
            raise refused(f"{path / name}", f"a link to no file of the archive, {to}")
        seen.add(to)
        member = by_name[to]
    return member


def header(file: IO[bytes], start: int) -> int:
    """The length of the header that stands before a member's bytes in a zip."""
    signature, name, extra = LOCAL_HEADER.unpack(stored(file, start, LOCAL_HEADER.size))
    check(signature == b"PK\3\4", "there is no header where it should begin")
    return int(LOCAL_HEADER.size + name + extra)


def stored(file: IO[bytes], start: int, size: int) -> bytes:
    file.seek(start)
    content = file.read(size)
    check(len(content) == size, "it lies outside the file")
    return content


def unpacked(content: bytes, method: int, size: int) -> bytes:
    """What a member's bytes stand for, the first `size` bytes of it and one more, which tells that there are more."""
    if method == zipfile.ZIP_STORED:
        return content
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)


def is_archive(path: Path) -> bool:
    """Whether the name ends as those of the archives that are read."""
    return path.name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz"))
