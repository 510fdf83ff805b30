"""juanji summary"""

from __future__ import annotations

import json
from typing import Annotated

import typer


def summary(
    model: Annotated[str, typer.Argument(help="A network, by a name from `juanji models`.")],
    size: Annotated[
        str, typer.Option("--input", metavar="H,W,C", help="Height, width and channels of an image.")
    ] = "28,28,1",
    classes: Annotated[int, typer.Option(help="How many classes it tells apart.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a network's layers: output shape, parameters, multiplications for one image, receptive field.

    Example:

      juanji summary lenet5 --input 32,32,3 --classes 100
    """
    from juanji import models
    from juanji.summary import summarise
    from juanji.tensor import Tensor, trace

    height, width, channels = parse(size)
    network = models.create(model, classes=classes, in_channels=channels, input_size=(height, width))
    result = summarise(trace(network.eval(), Tensor.spec((1, height, width, channels))))
    print(json.dumps(result.to_dict(), ensure_ascii=False) if as_json else result)


def parse(size: str) -> tuple[int, int, int]:
    from juanji.errors import ArgumentError

    parts = size.replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ArgumentError(
            "summary: bad --input", received=repr(size), rule="height,width,channels", fix="--input 32,32,3"
        )
    height, width, channels = map(int, parts)
    return height, width, channels
