"""Public datasets that are downloaded when their name is said, and read in the form they are published in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from juanji.data.arrays import CIFAR, in_cifar, in_idx
from juanji.data.download import File, Progress, fetch, silent, unfinished
from juanji.data.labelled import Labelled
from juanji.interop.files import made
from juanji.kernels import cache


@dataclass(frozen=True)
class Public:
    """A dataset: its files, where they can be had, the folder that other programs keep them in beneath theirs, what
    reads a folder of them, and its classes."""

    files: tuple[File, ...]
    mirrors: tuple[str, ...]
    folder: str
    read: Callable[[Path], Labelled]
    classes: tuple[str, ...]


def cifar(folder: Path) -> Labelled:
    archive = folder / "cifar-10-binary.tar.gz"
    return in_cifar(archive if archive.exists() else folder)


# Sizes and SHA-256: github.com/tensorflow/datasets, tensorflow_datasets/url_checksums/{mnist,fashion_mnist,cifar10}.txt
PUBLIC = {
    "mnist": Public(
        (
            File("train-images-idx3-ubyte.gz", 9912422,
                 "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            File("train-labels-idx1-ubyte.gz", 28881,
                 "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            File("t10k-images-idx3-ubyte.gz", 1648877,
                 "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            File("t10k-labels-idx1-ubyte.gz", 4542,
                 "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ),
        ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
        "MNIST/raw",
        in_idx,
        tuple("0123456789"),
    ),
    "fashion-mnist": Public(
        (
            File("train-images-idx3-ubyte.gz", 26421880,
                 "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            File("train-labels-idx1-ubyte.gz", 29515,
                 "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            File("t10k-images-idx3-ubyte.gz", 4422102,
                 "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            File("t10k-labels-idx1-ubyte.gz", 5148,
                 "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        "FashionMNIST/raw",
        in_idx,
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": Public(
        (File("cifar-10-binary.tar.gz", 170052171,
                 "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),),
        ("https://www.cs.toronto.edu/~kriz/", "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/"),
        "cifar-10-batches-bin",
        cifar,
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
}  # fmt: skip


def public(name: str, data_dir: str | Path | None = None, progress: Progress = silent) -> Labelled:
    """A public dataset, read from `data_dir` where its files are there, else downloaded to it; to the cache by default.

    They may lie in the folder itself, in one of the dataset's name, or where torchvision keeps them; unpacked too. What
    is found is checked by its form only; what is downloaded, by its SHA-256. Raises DataError where neither gives it.
    """
    wanted = PUBLIC[name]
    place = Path(data_dir) if data_dir is not None else default_place()
    for folder in (place, place / name, place / wanted.folder):
        if is_there(folder, wanted):
            return replace(wanted.read(folder), name=name, classes=wanted.classes)
    folder = made(place / name, "name one, in a folder that may be written to: --data-dir FOLDER")
    for file in wanted.files:
        if not (folder / file.name).exists():
            fetch(file, wanted.mirrors, folder, progress)
    return replace(wanted.read(folder), name=name, classes=wanted.classes)


def default_place() -> Path:
    return cache.folder() / "datasets"


def is_there(folder: Path, wanted: Public) -> bool:
    """Whether all files are in a folder, as they are published or unpacked."""
    if all((folder / file.name).exists() or (folder / file.name.removesuffix(".gz")).exists() for file in wanted.files):
        return True
    return wanted.read is cifar and all((folder / name).exists() for name in CIFAR)


def entries() -> list[Path]:
    """The downloaded files in the cache, unfinished ones too."""
    named = (default_place() / name / file.name for name, wanted in PUBLIC.items() for file in wanted.files)
    return [path for whole in named for path in (whole, unfinished(whole)) if path.is_file()]


def clear() -> tuple[int, int]:
    """Remove them. Returns how many there were and their bytes."""
    found = entries()
    sizes = [path.stat().st_size for path in found]
    for path in found:
        path.unlink(missing_ok=True)
    return len(sizes), sum(sizes)
