"""What happens in a training as TensorBoard reads it."""

from __future__ import annotations

import functools
import os
import socket
import struct
import time
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from juanji.errors import DataError
from juanji.train.callback import Callback
from juanji.train.history import Epoch, Step
from juanji.train.trainer import Trainer

EVERY = 10  # steps
POLYNOMIAL = 0x82F63B78  # Castagnoli's, reflected


class TensorBoard(Callback):
    """Writes `events.out.tfevents.…` into a folder: loss and accuracy of every tenth step, and every figure of epochs.

    `tensorboard --logdir FOLDER` shows them. A run that is resumed writes a file of its own, which TensorBoard joins.

    A file is a sequence of records, each a length, its checksum, a message and its checksum; a message is an `Event` in
    protobuf's encoding. Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/util/event.proto.

    Raises DataError, naming the file, where it cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.path: Path | None = None

    def on_start(self, trainer: Trainer) -> None:
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = self.folder / name
        self.write(event(message(3, b"brain.Event:2")))

    def on_step(self, trainer: Trainer, step: Step) -> None:
        if trainer.progress.done % EVERY == 0:
            shown = {"step/loss": step.loss, "step/accuracy": step.accuracy, "step/lr": step.lr}
            self.write(event(scalars(shown), trainer.progress.done))

    def on_epoch(self, trainer: Trainer, row: Epoch) -> None:
        figures = {name: value for name, value in asdict(row).items() if name != "epoch" and value is not None}
        self.write(event(scalars({f"epoch/{name}": value for name, value in figures.items()}), row.epoch))

    def write(self, data: bytes) -> None:
        if self.path is None:
            return
        try:
            with self.path.open("ab") as file:
                append(file, data)
        except OSError as error:
            raise DataError(
                f"{self.path}: the file cannot be written",
                received=error.strerror or str(error),
                fix="make room on the disk, or train without --tensorboard; the run can be resumed",
            ) from None


def append(file: BinaryIO, data: bytes) -> None:
    """Add a record."""
    length = struct.pack("<Q", len(data))
    file.write(length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data)))


def masked(data: bytes) -> int:
    """A checksum that may itself be summed: CRC-32C, turned and moved."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, crc_table()
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@functools.cache
def crc_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [crc >> 1 ^ POLYNOMIAL * (crc & 1) for crc in table]
    return table


def event(what: bytes, step: int = 0) -> bytes:
    """An Event: field 1 the time, 2 the step, and what happened."""
    return b"\x09" + struct.pack("<d", time.time()) + b"\x10" + varint(step) + what


def scalars(values: dict[str, float]) -> bytes:
    """Field 5, a Summary of values: field 1 of each the tag, field 2 the number."""
    each = (message(1, tag.encode()) + b"\x15" + struct.pack("<f", value) for tag, value in values.items())
    return message(5, b"".join(message(1, value) for value in each))


def message(field: int, content: bytes) -> bytes:
    """A field that has a length."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])
