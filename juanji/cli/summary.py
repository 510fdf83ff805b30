"""juanji summary"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from juanji import models
from juanji.cli.options import Options, settings
from juanji.errors import ArgumentError
from juanji.summary import summarise
from juanji.tensor import Tensor, trace


def summary(
    model: Annotated[str, typer.Argument(help="A network, by a name from `juanji models`.")],
    size: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="H,W,C",
            help="Height, width and channels of an image.  [default: the network's own]",
        ),
    ] = None,
    classes: Annotated[int, typer.Option(help="How many classes it tells apart.")] = 10,
    option: Options = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a network's layers: output shape, parameters, multiplications for one image, receptive field.

    Examples:

      juanji summary lenet5_1998

      juanji summary lenet5 --input 32,32,3 --classes 100

      juanji summary resnet18 --input 32,32,3 --option stem=small
    """
    chosen = settings("summary", option or []) | ({} if size is None else parse(size))
    network = models.create(model, classes=classes, **chosen)
    image = Tensor.spec((1, *network.config["input_size"], network.config["in_channels"]))
    result = summarise(trace(network.eval(), image))
    print(json.dumps(result.to_dict(), ensure_ascii=False) if as_json else result)


def parse(size: str) -> dict[str, Any]:
    parts = size.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentError(
            "summary: bad --input", received=repr(size), rule="height,width,channels", fix="--input 32,32,3"
        )
    height, width, channels = map(int, parts)
    return {"input_size": (height, width), "in_channels": channels}
