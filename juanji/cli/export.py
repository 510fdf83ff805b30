"""juanji export"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from juanji.cli.status import status
from juanji.graph import Array
from juanji.interop import save_onnx
from juanji.interop.export.model import OLDEST
from juanji.interop.packages import NEWEST
from juanji.summary import size_of
from juanji.train import Run, load_run

IMAGES = 4  # random ones, for the check
AGREEMENT = 1e-4  # of the largest output


def export(
    run: Annotated[Path, typer.Argument(help="A run folder that `juanji train` made.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write, such as model.onnx.")],
    layout: Annotated[str, typer.Option(help="How images go in: NCHW, as is usual in ONNX, or NHWC.")] = "NCHW",
    fold: Annotated[bool, typer.Option("--fold", help="Put batch normalisation into the convolutions.")] = False,
    opset: Annotated[
        int | None, typer.Option(help=f"Version of the operators, {OLDEST} to {NEWEST}.  [default: {NEWEST}]")
    ] = None,
) -> None:
    """Write a trained network as an ONNX file, which other programs can run.

    The network takes images of the run's size, any number at a time, standardised as in training: channel by channel,
    (image in 0…1 − mean) / std. It gives logits; the largest is the answer, their softmax the probabilities. The file
    says so itself: its metadata hold `mean`, `std` and `class_names` as JSON, and `model`, what the network is.

    Where onnxruntime is installed the file is tried on random images and compared with juanji; the exit code is 1
    where they disagree. Runtimes that do not know the newest operators want a smaller --opset.

    Example:

      juanji export runs/digits-lenet5-1 -o digits.onnx
    """
    loaded = load_run(run)
    shown = loaded.config.preprocessing
    metadata = {"class_names": loaded.classes, "mean": shown.mean, "std": shown.std}
    name = loaded.config.model["name"]
    with status(f"writing {name}"):
        save_onnx(loaded.model, out, layout=layout, fold_batch_norm=fold, opset=opset, metadata=metadata)
    print(f"{out}: {name}, {size_of(out.stat().st_size)}, images {layout}")
    compare(loaded, out, layout)


def compare(run: Run, path: Path, layout: str) -> None:
    """Run the file and the network on the same random images, and say how far apart they are."""
    try:
        import onnxruntime
    except ImportError:
        print("not tried: pip install onnxruntime, and it is compared with juanji")
        return
    shown = run.config.preprocessing
    x = np.random.default_rng(0).normal(size=(IMAGES, *shown.size, shown.channels)).astype(np.float32)
    with status("comparing it with juanji"):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (got,) = session.run(None, {session.get_inputs()[0].name: x.transpose(0, 3, 1, 2) if layout == "NCHW" else x})
        apart = difference(got, np.asarray(run.model(x)))
    told = f"onnxruntime {onnxruntime.__version__} on {IMAGES} random images: outputs differ by {apart:.1e}"
    if apart <= AGREEMENT:
        print(f"tried with {told} of the largest")
    else:
        print(f"juanji: {told} of the largest, where {AGREEMENT:.0e} is allowed", file=sys.stderr)
        raise typer.Exit(1)


def difference(got: Array, expected: Array) -> float:
    """The largest difference, as a part of the largest value that is expected; infinite where one is not a number."""
    apart = np.abs(got - expected).max() / np.abs(expected).max()
    return float(apart) if np.isfinite(apart) else float("inf")
