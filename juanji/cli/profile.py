"""juanji profile"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from juanji import autodiff, models, ops, optim
from juanji.cli.options import Options, settings
from juanji.cli.status import status
from juanji.errors import ArgumentError
from juanji.nn.module import Module
from juanji.summary import size_of
from juanji.table import aligned
from juanji.train import load_run

if TYPE_CHECKING:
    from juanji.engine.plan import Plan
    from juanji.engine.profile import Profile, Row

HEADINGS = ("layer", "kind", "calls", "ms", "share", "GFLOP/s", "of peak", "MB", "GB/s")
LEAST = 0.003  # of the step: rows below are shown as one


def profile(
    model: Annotated[str, typer.Argument(help="A network, by a name from `juanji models`, or a run folder.")],
    batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 32,
    train: Annotated[bool, typer.Option("--train", help="A training step instead of an answer.")] = False,
    size: Annotated[
        int | None, typer.Option(min=1, help="Height and width of the images, in pixels.  [default: the network's own]")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=2, help="How many classes it tells apart.  [default: 10]")] = None,
    option: Options = None,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or auto.")] = "float32",
    repeat: Annotated[int, typer.Option(min=1, help="Rounds of three steps to measure; medians count.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where a network's time goes: each layer's milliseconds, GFLOP/s and bytes, forwards and backwards.

    Everything is measured in its place in a whole step, on random images. Peak is what the machine does when it
    multiplies and adds without touching memory. MB are those of what is read and written, each once.

    The network of a run folder is measured as it was trained: --size, --classes and --option are for others.

    Examples:

      juanji profile lenet5 --batch 64

      juanji profile resnet18 --train --batch 8 --repeat 3

      juanji profile resnet18 --size 32 --option stem=small --option width=0.5
    """
    from juanji.engine.explain import memory
    from juanji.engine.profile import profile as measure

    network = load(model, input_size=size, classes=classes, **settings("profile", option or []))
    with status(f"compiling {model}"):
        plan = plan_of(network, batch, train, precision)
    with status(f"measuring {model}"):
        result = measure(plan, repeat)
    head = {"model": model, "batch": batch, "train": train, "precision": precision}
    if as_json:
        print(
            json.dumps(head | to_dict(result) | {"memory": {**memory(plan), "all": plan.memory()}}, ensure_ascii=False)
        )
        return
    print(text(result))
    print(f"memory        {size_of(plan.memory())}")


def load(model: str, **settings: Any) -> Module:
    """A network by its name, made with the settings that are given; or that of a run folder, which has its own."""
    given = {key: value for key, value in settings.items() if value is not None}
    if not (Path(model) / "config.json").is_file():
        return models.create(model, **given)
    if given:
        raise ArgumentError(
            "profile: the network of a run folder is measured as it was trained",
            received=", ".join(given),
            fix="leave out --size, --classes and --option, or give a network's name",
        )
    return load_run(model).model


def plan_of(network: Module, batch: int, train: bool, precision: str = "float32") -> Plan:
    """The plan of a training step, or of an answer, with random images put in."""
    from juanji.engine import compile

    config, random = network.config, np.random.default_rng(0)
    x = random.standard_normal((batch, *config["input_size"], config["in_channels"]), np.float32)
    if not train:
        return compile(network.eval(), precision=precision).plan(x)
    network.train()
    optimizer = optim.SGD(network, lr=1e-4, momentum=0.9)

    def step(x: Any, y: Any) -> Any:
        loss, grads = autodiff.value_and_grad(lambda network: ops.cross_entropy(network(x), y))(network)
        optimizer.update(network, grads)
        return loss

    return compile(step, precision=precision).plan(x, random.integers(0, config["classes"], batch))


def to_dict(result: Profile) -> dict[str, Any]:
    return {
        "isa": result.isa,
        "threads": result.threads,
        "peak_gflops": result.peak,
        "step_seconds": result.step,
        "sum_seconds": result.seconds,
        "rows": [dataclasses.asdict(row) | {"gflops": row.gflops} for row in result.rows],
    }


# As text


def text(result: Profile) -> str:
    """A table with a part for each stage, and totals."""
    stages = dict.fromkeys(row.stage for row in result.rows)
    lines = [line for stage in stages for line in part([row for row in result.rows if row.stage == stage], result)]
    table = aligned([HEADINGS, *lines], right=range(2, len(HEADINGS)))
    rule = "─" * max(map(len, table))
    totals = [
        f"whole step    {1e3 * result.step:.3f} ms; the rows together {1e3 * result.seconds:.3f} ms",
        f"peak          {result.peak:,.0f} GFLOP/s, {result.isa}, {result.threads} threads",
    ]
    return "\n".join([table[0], rule, *table[1:], rule, *totals])


def part(rows: list[Row], result: Profile) -> list[tuple[str, ...]]:
    """A stage's rows, the small ones as one, and their sum."""
    least = LEAST * result.seconds
    large = [row for row in rows if row.seconds >= least]
    small = [row for row in rows if row.seconds < least]
    lines = [cells(row, result) for row in large]
    if small:
        lines.append(cells(together(small, f"{len(small)} small ones"), result))
    return [*lines, cells(together(rows, f"all {rows[0].stage}"), result)]


def together(rows: list[Row], name: str) -> Row:
    sums = {key: sum(getattr(row, key) for row in rows) for key in ("calls", "seconds", "products", "nbytes")}
    return dataclasses.replace(rows[0], layer=name, kind="", **sums)


def cells(row: Row, result: Profile) -> tuple[str, ...]:
    speed = (f"{row.gflops:,.1f}", f"{row.gflops / result.peak:.1%}") if row.products else ("", "")
    return (
        row.layer or "outside layers",
        row.kind,
        str(row.calls),
        f"{1e3 * row.seconds:.3f}",
        f"{row.seconds / result.seconds:.1%}",
        *speed,
        f"{row.nbytes / 1e6:.1f}",
        f"{1e-9 * row.nbytes / row.seconds:.1f}",
    )
