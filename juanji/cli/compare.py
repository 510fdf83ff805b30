"""juanji compare"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from juanji.cli.options import SkipUnreadable
from juanji.cli.parts import Parts, judged_on
from juanji.data import Images
from juanji.errors import ArgumentError, DataError
from juanji.table import aligned
from juanji.train import Evaluation, Run, evaluate_images, load_run
from juanji.train.evaluation import slices
from juanji.train.folder import CONFIG, METRICS, WEIGHTS, damaged, read_json
from juanji.train.metrics import mcnemar

SIGNIFICANT = 0.05
LONGEST = 40  # letters of a choice in the table


@dataclass(frozen=True)
class Judged:
    """A run and what it answered to the test images, which `images` tells from others."""

    run: Run
    result: Evaluation
    images: str
    metrics: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.run.path)

    def figures(self) -> dict[str, Any]:
        shown = self.result
        return {
            "run": self.name,
            "accuracy": shown.accuracy,
            "accuracy_interval": list(shown.accuracy_interval),
            "balanced_accuracy": shown.balanced_accuracy,
            "macro_f1": shown.macro_f1,
            "loss": shown.loss,
            "calibration_error": shown.calibration.error,
            "images": len(shown),
            "bytes": (self.run.path / WEIGHTS).stat().st_size,
            **{name: known(self.metrics, name) for name in ("parameters", "epochs", "train_seconds")},
        }


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders that `juanji train` made, two or more.")],
    data: Annotated[
        str | None, typer.Option(help="Images to judge all of them on.  [default: the test images of each]")
    ] = None,
    part: Parts = None,
    skip_unreadable: SkipUnreadable = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare trained networks: their figures, what was chosen differently, and whether one is better for certain.

    Every run is compared with the first one, on the same images: p is how likely two equally good networks would
    differ as much, by McNemar's exact test, which counts the images that only one of the two got right. Below 0.05 the
    difference is called significant; among many runs, some will be by chance. Runs that were not tested on the same
    images are not compared in this way, unless --data gives images to judge them on.

    Examples:

      juanji compare runs/digits-lenet5-1 runs/digits-perceptron-1

      juanji compare runs/* --data new-photos --json
    """
    if len(runs) < 2:
        raise ArgumentError(
            "compare: there is nothing to compare with",
            received=str(runs[0]),
            rule="two runs or more",
            fix=f"juanji compare {runs[0]} ANOTHER, or juanji evaluate {runs[0]}",
        )
    loaded = [load_run(path) for path in with_runs(runs)]
    judged = [judge(run, loaded[0], lambda run: judged_on(run, data, part, skip_unreadable).images) for run in loaded]
    pairs = [pair(judged[0], other) for other in judged[1:]]
    chosen = differences([one.run for one in judged])
    if as_json:
        figures = [one.figures() for one in judged]
        print(json.dumps({"runs": figures, "differences": chosen, "tests": pairs}, ensure_ascii=False))
    else:
        print("\n\n".join(report(judged, chosen, pairs)))


def with_runs(paths: Sequence[Path]) -> list[Path]:
    """The paths without the folders that hold no run, which a warning names, where two or more are left: as `runs/*`
    has those of trainings that could not begin."""
    empty = [path for path in paths if path.is_dir() and not (path / CONFIG).exists()]
    left = [path for path in paths if path not in empty]
    if not empty or len(left) < 2:
        return list(paths)
    warnings.warn(f"no run in {', '.join(map(str, empty))}: left out", stacklevel=2)
    return left


def judge(run: Run, first: Run, images_of: Callable[[Run], Images]) -> Judged:
    images = images_of(run)
    result = evaluate_images(run.asked, images, run.config.preprocessing)
    return Judged(run, result, fingerprint(run, first, images, images_of), metrics_of(run))


def fingerprint(run: Run, first: Run, images: Images, images_of: Callable[[Run], Images]) -> str:
    """What tells images and labels from others: a digest of them in the size and channels of the first run, so that it
    is the same for networks that see the same images in different sizes."""
    form = replace(first.config.preprocessing, mean=(), std=())
    if replace(run.config.preprocessing, mean=(), std=()) != form:
        same = replace(run.config, preprocessing=first.config.preprocessing)
        try:
            images = images_of(replace(run, config=same))
        except DataError:  # of other channels: not the same images as any other run's
            return str(run.path)
    digest = hashlib.blake2b(json.dumps([run.classes[label] for label in images.y.tolist()]).encode())
    for chosen in slices(images.x.shape):
        digest.update(np.ascontiguousarray(images.read(chosen)).data)
    return digest.hexdigest()


def metrics_of(run: Run) -> dict[str, Any]:
    """What the run's metrics.json holds. Raises DataError, naming it, where it cannot be read."""
    path = run.path / METRICS
    try:
        values = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from None
    if not isinstance(values, dict):
        raise damaged(path, f"{type(values).__name__} instead of an object")
    return values


def known(metrics: dict[str, Any], name: str) -> float | None:
    """A number of metrics.json, None where an older run has not written it."""
    value = metrics.get(name)
    return value if isinstance(value, int | float) else None


def pair(first: Judged, other: Judged) -> dict[str, Any]:
    """The first run against another one: images that only one of the two got right, and how likely by chance."""
    found: dict[str, Any] = {"first": first.name, "other": other.name, "same_images": first.images == other.images}
    if found["same_images"]:
        ours, theirs = first.result.right, other.result.right
        p = mcnemar(ours, theirs)
        only = {"only_first": int((ours & ~theirs).sum()), "only_other": int((theirs & ~ours).sum())}
        found |= {**only, "p": p, "significant": p < SIGNIFICANT}
    return found


# What was chosen differently


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Every choice that is not the same in all runs, by its place in config.json, with its value in each."""
    chosen = [dict(flat(run.config.to_dict())) for run in runs]
    names = dict.fromkeys(name for values in chosen for name in values if not name.startswith("versions."))
    rows = {name: [values.get(name) for values in chosen] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def flat(values: dict[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """{"a": {"b": 1}} as ("a.b", 1)."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{place}{name}.")
        else:
            yield place + name, list(value) if isinstance(value, tuple) else value


# In words


def report(judged: Sequence[Judged], chosen: dict[str, list[Any]], pairs: Sequence[dict[str, Any]]) -> Iterator[str]:
    headings = (
        "",
        "accuracy",
        "95% interval",
        "balanced",
        "loss",
        "calibration error",
        "parameters",
        "size",
        "trained",
    )
    yield "\n".join(aligned([headings, *map(row, judged)], right=range(1, len(headings))))
    if chosen:
        rows = [(name, *map(short, values)) for name, values in chosen.items()]
        yield "\n".join(aligned([("chosen differently", *(one.name for one in judged)), *rows]))
    else:
        yield "everything was chosen alike"
    yield "\n".join(map(verdict, pairs))


def row(one: Judged) -> tuple[str, ...]:
    found = one.figures()
    low, high = found["accuracy_interval"]
    parameters, seconds = found["parameters"], found["train_seconds"]
    return (
        one.name,
        f"{found['accuracy']:.2%}",
        f"{low:.1%}–{high:.1%}",
        f"{found['balanced_accuracy']:.2%}",
        f"{found['loss']:.4f}",
        f"{found['calibration_error']:.2%}",
        "–" if parameters is None else f"{parameters:,}",
        f"{found['bytes'] / 1e6:.2f} MB",
        "–" if seconds is None else f"{seconds:.0f} s, {found['epochs']} epoch{'s' * (found['epochs'] != 1)}",
    )


def short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "–" if value is None else f"[{', '.join(map(short, value))}]" if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def verdict(found: dict[str, Any]) -> str:
    first, other = found["first"], found["other"]
    if not found["same_images"]:
        return f"{first} and {other} were not tested on the same images; --data judges both on others"
    ours, theirs, p = found["only_first"], found["only_other"], found["p"]
    counts = f"right where the other is wrong: {first} on {ours} images, {other} on {theirs}; p = {p:.3g}"
    if not ours + theirs:
        return f"{counts}: they are right and wrong on the same images"
    if not found["significant"]:
        return f"{counts}: the difference may well be chance"
    return f"{counts}: {first if ours > theirs else other} is significantly better"
