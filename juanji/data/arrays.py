"""Arrays of images and labels in files: NumPy's .npz, IDX as MNIST has it, and CIFAR-10's binary batches. A file from
outside is data: what it declares is compared with what is there before memory is taken."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from juanji.data.archives import Archive
from juanji.data.labelled import TEST, TRAIN, VAL, ImageArray, Labelled, numbered
from juanji.errors import DataError
from juanji.graph import Array

DEFLATE = 1032  # no deflated byte stands for more (zlib's technical notes)
HEADER = 1 << 16  # bytes of an array's description
# The names of images and labels of each part, as NumPy's users, Keras and MedMNIST write them.
KEYS = {
    TRAIN: (("x", "y"), ("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels")),
    VAL: (("x_val", "y_val"), ("val_images", "val_labels")),
    TEST: (("x_test", "y_test"), ("test_images", "test_labels")),
}
IDX_IMAGES = re.compile(r"(.*?)images([-.])idx3-ubyte(\.gz)?")
CIFAR = (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin")
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def damaged(path: Path | str, received: str, rule: str) -> DataError:
    return DataError(f"{path}: the file is damaged, or not of this kind", received=received, rule=rule)


def labelled_arrays(
    origin: str, parts: Mapping[int, tuple[Array, Array]], classes: tuple[str, ...] | None = None
) -> Labelled:
    """Images and labels of one or more parts as one. One part only is to be split.

    Raises DataError for parts whose images differ in size, or arrays that are no labelled images.
    """
    checked = {part: (images_of(origin, x), y.reshape(-1)) for part, (x, y) in sorted(parts.items()) if len(x)}
    if TRAIN not in checked:
        raise damaged(origin, "no image to train on", "at least one")
    for x, y in checked.values():
        if len(x) != len(y):
            raise damaged(origin, f"{len(x):,} images and {len(y):,} labels", "one label for each image")
    if len({(x.shape[1:], x.dtype) for x, _ in checked.values()}) > 1:
        received = ", ".join(f"{x.dtype}{list(x.shape)}" for x, _ in checked.values())
        raise damaged(origin, received, "the images of all parts have one size and one dtype")
    x = np.concatenate([x for x, _ in checked.values()]) if len(checked) > 1 else checked[TRAIN][0]
    names, y = class_numbers(origin, np.concatenate([y for _, y in checked.values()]), classes)
    part = np.concatenate([np.full(len(y), part, np.int8) for part, (_, y) in checked.items()])
    return Labelled(origin, ImageArray(origin, x), y, names, part if len(checked) > 1 else None)


def images_of(origin: str, x: Array) -> Array:
    """Images as they are kept: (N, H, W, C), uint8 or float32."""
    x = x[..., None] if x.ndim == 3 else x
    if x.ndim != 4 or (x.shape[1] in (1, 3) and x.shape[3] > 4) or 0 in x.shape:
        raise damaged(origin, f"images {list(x.shape)}", "(N, H, W, C), channels last, or (N, H, W)")
    if x.dtype == bool:
        return x.astype(np.uint8) * np.uint8(255)
    low, high = float(x.min()), float(x.max())
    most = 1 if x.dtype.kind == "f" else 255
    if not 0 <= low <= high <= most:
        raise damaged(origin, f"{x.dtype} from {low:g} to {high:g}", "bytes from 0 to 255, or floats from 0 to 1")
    return x.astype(np.float32 if x.dtype.kind == "f" else np.uint8, copy=False)


def class_numbers(origin: str, y: Array, classes: tuple[str, ...] | None) -> tuple[tuple[str, ...], Array]:
    if y.dtype.kind in "US":
        return numbered(np.char.decode(y).tolist() if y.dtype.kind == "S" else y.tolist())
    if y.dtype.kind not in "iu":
        raise damaged(origin, f"labels of {y.dtype}", "whole numbers, or text")
    if classes is None:
        found, numbers = np.unique(y, return_inverse=True)
        return tuple(map(str, found)), numbers.astype(np.int64).reshape(-1)
    if y.size and not 0 <= y.min() <= y.max() < len(classes):
        raise damaged(origin, f"labels from {y.min()} to {y.max()}", f"0 to {len(classes) - 1}")
    return classes, y.astype(np.int64)


def in_npz(path: Path) -> Labelled:
    """The images and labels of a NumPy file: x (N, H, W[, C]) and y (N,), maybe x_test and y_test, x_val and y_val.

    The names of Keras (x_train) and MedMNIST (train_images) do too; `classes` may name the classes. Raises DataError,
    naming the file, for one that is damaged, declares more than it holds, or has Python objects in it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            pairs = {part: pair for part, names in KEYS.items() for pair in names if {*pair} <= {*found}}
            arrays = {part: tuple(array(archive, found[key]) for key in pair) for part, pair in pairs.items()}
            names = array(archive, found["classes"]) if "classes" in found else None
    except DataError as error:
        raise damaged(path, error.what, "arrays as numpy.savez writes them") from None
    # A damaged archive can make zipfile and NumPy raise anything.
    except Exception as error:
        raise damaged(path, str(error)[:200] or type(error).__name__, "a file that numpy.savez wrote") from None
    if TRAIN not in pairs:
        received = "arrays " + ", ".join(sorted(found)[:10])
        raise damaged(path, received, "x and y, x_train and y_train, or train_images and train_labels")
    classes = None if names is None else tuple(str(name) for name in names.reshape(-1))
    return labelled_arrays(str(path), {part: (x, y) for part, (x, y) in arrays.items()}, classes)


def array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    """An array of an .npz whose description agrees with the bytes that are there."""
    if entry.file_size > max(DEFLATE * entry.compress_size, HEADER):
        raise DataError(f"{entry.filename} stands for {entry.file_size:,} bytes and has {entry.compress_size:,}")
    with archive.open(entry) as file:
        shape, fortran, dtype = description(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size != entry.file_size - file.tell():
            raise DataError(f"{entry.filename} declares {dtype}{list(shape)}; it has {entry.file_size:,} bytes")
        values = np.frombuffer(file.read(size), dtype)
        return values.reshape(shape, order="F" if fortran else "C")


def description(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file, max_header_size=HEADER)


def is_idx(name: str) -> bool:
    return IDX_IMAGES.fullmatch(name) is not None


def in_idx(path: Path) -> Labelled:
    """The images of IDX files, as MNIST has them: a folder of them, or one file of images with its labels beside it.

    Of a folder, those called train-… are to train on and those called t10k-… or test-… to test on, where there are
    both. Raises DataError, naming the file, for one that is missing or damaged.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    parts: dict[int, tuple[Array, Array]] = {}
    for file in files:
        match = IDX_IMAGES.fullmatch(file.name)
        if match is None:
            continue
        part = TEST if "t10k" in match[1].lower() or "test" in match[1].lower() else TRAIN
        if part not in parts:
            parts[part] = read_idx(file, 3), read_idx(labels_of(file, match), 1)
    return labelled_arrays(str(path), parts if TRAIN in parts else {TRAIN: parts[TEST]})


def labels_of(images: Path, match: re.Match[str]) -> Path:
    """The file of labels beside a file of images, compressed or not."""
    whole = images.with_name(f"{match[1]}labels{match[2]}idx1-ubyte")
    packed = whole.with_name(whole.name + ".gz")
    for path in (packed, whole) if match[3] else (whole, packed):
        if path.is_file():
            return path
    raise DataError(
        f"{images}: the labels of these images are missing",
        rule=f"a file {whole.name}, or {packed.name}, beside it",
        fix="put it there",
    )


def read_idx(path: Path, axes: int) -> Array:
    """The bytes of an IDX file of so many axes. Raises DataError, naming the file, for any other.

    Format: http://yann.lecun.com/exdb/mnist/: two zeros, 8 for bytes, the number of axes; each axis as a big-endian
    word; the values.
    """
    rule = f"an IDX file of bytes with {axes} axes, maybe compressed by gzip"
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(4 + 4 * axes)
            if len(head) != 4 + 4 * axes or head[:4] != bytes((0, 0, 8, axes)):
                raise damaged(path, f"it begins with {head[:4].hex(' ') or 'nothing'}", rule)
            shape = struct.unpack(f">{axes}I", head[4:])
            size, most = math.prod(shape), os.stat(path).st_size * (DEFLATE if packed else 1)
            if size > most:
                raise damaged(path, f"it declares {list(shape)}, more than it can hold", rule)
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, str(error), rule) from None
    if len(content) != size:
        raise damaged(
            path, f"it declares {list(shape)}, {'more' if len(content) < size else 'less'} than is there", rule
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def in_cifar(path: Path) -> Labelled:
    """CIFAR-10 in its binary form, cifar-10-binary.tar.gz or a folder of its batches: a label and 3×32×32 bytes each.

    Format: https://www.cs.toronto.edu/~kriz/cifar.html. Raises DataError, naming the file, for what is missing.
    """
    rule = "five batches to train on and one to test on, of a label and 3,072 bytes for each image"
    contents = dict(batches(path))
    if missing := [name for name in CIFAR if name not in contents]:
        raise damaged(path, f"no {missing[0]}", rule)
    parts = {TRAIN: b"".join(contents[name] for name in CIFAR[:-1]), TEST: contents[CIFAR[-1]]}
    records = {}
    for part, content in parts.items():
        if len(content) % 3073:
            raise damaged(path, f"{len(content):,} bytes", rule)
        values = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        images = np.ascontiguousarray(values[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        records[part] = images, values[:, 0].astype(np.int64)
    return labelled_arrays(str(path), records, CIFAR_CLASSES)


def batches(path: Path) -> Iterator[tuple[str, bytes]]:
    from juanji.data.source import Folder

    source = Folder(path) if path.is_dir() else Archive(path)
    for i, name in enumerate(source.files.names):
        base = name.rpartition("/")[2]
        if base in CIFAR:
            yield base, source.read(i)
