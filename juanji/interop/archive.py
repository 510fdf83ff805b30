"""Zip archives of uncompressed members, as `torch.save` writes them: where each member's bytes lie in the file."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from typing import BinaryIO

from juanji.errors import WeightsError

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, length of the name, length of what else there is (APPNOTE 4.3.7)


@dataclass(frozen=True)
class Member:
    """A member's bytes: the first one's place, how many, and their CRC-32 (0: none was computed)."""

    name: str
    start: int
    size: int
    crc: int


def members(file: BinaryIO) -> dict[str, Member]:
    """The members of an archive by name.

    Raises WeightsError for one that is compressed or encrypted (a few bytes could stand for gigabytes), whose name is
    given twice or leads elsewhere, or that lies outside the file or over another; for what is no archive, the errors
    of `zipfile`.
    """
    with zipfile.ZipFile(file) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    limits = [*(entry.header_offset for entry in entries[1:]), file.seek(0, 2)]
    found: dict[str, Member] = {}
    for entry, limit in zip(entries, limits, strict=False):  # an empty archive has a limit, too
        if problem := wrong(entry, entry.filename in found):
            raise bad(entry, problem)
        found[entry.filename] = located(file, entry, limit)
    return found


def wrong(entry: zipfile.ZipInfo, known: bool) -> str:
    """What is wrong with a member by what its entry says; "" for nothing."""
    parts = entry.filename.replace("\\", "/").split("/")
    if known:
        return "its name is given twice"
    if ".." in parts or not parts[0] or ":" in parts[0]:
        return "its name leads out of the archive"
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        return f"it is compressed, {entry.compress_size:,} bytes for {entry.file_size:,}"
    return "it is encrypted" if entry.flag_bits & 1 else ""


def located(file: BinaryIO, entry: zipfile.ZipInfo, limit: int) -> Member:
    """A member, whose bytes end before `limit`. Their first place follows from a header that stands before them."""
    file.seek(entry.header_offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size:
        raise bad(entry, "it lies outside the file")
    signature, name, extra = LOCAL_HEADER.unpack(header)
    start = entry.header_offset + LOCAL_HEADER.size + name + extra
    if signature != b"PK\3\4":
        raise bad(entry, "there is no header where it should begin")
    if start + entry.file_size > limit:
        raise bad(entry, f"its {entry.file_size:,} bytes reach beyond the end of the file, or into another member")
    return Member(entry.filename, start, entry.file_size, entry.CRC)


def bad(entry: zipfile.ZipInfo, what: str) -> WeightsError:
    return WeightsError(
        "a member of the checkpoint cannot be used",
        received=f"{entry.filename[:200]}: {what}",
        rule="each name once, the bytes as they are, one member after the other",
        fix="download the file again, or have PyTorch write it: torch.save(model.state_dict(), file)",
    )
