"""juanji filter"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from juanji.data import filters, read_image, write_image
from juanji.errors import ArgumentError


def filter_image(
    image: Annotated[Path, typer.Argument(help="An image file: PNG, JPEG, BMP, GIF, TIFF, WebP.")],
    kernel: Annotated[str, typer.Option(help="sharpen, blur, gaussian, mean, edges, sobel or identity.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write; its ending names the format.")],
) -> None:
    """Filter an image by convolution with a classical kernel.

    Each channel is filtered by itself; transparency stays. Beyond the edge the outermost pixels are repeated. The
    result is written with 8 bits a channel, values outside black and white cut off.

      identity  the image itself            sharpen  5 in the middle, −1 around
      mean      3×3 mean                    blur     3×3 weighted 1 2 1
      gaussian  7×7, standard deviation 1   edges    8 in the middle, −1 around
      sobel     length of the gradient

    Example:

      juanji filter photo.jpg --kernel edges -o edges.png
    """
    if out.resolve() == image.resolve():
        raise ArgumentError(f"{out}: this would overwrite the image that is filtered", fix="another name behind -o")
    pixels = read_image(image)
    opaque, alpha = pixels[..., :3], pixels[..., 3:]
    write_image(out, np.concatenate([filters.apply(opaque, kernel), alpha], axis=-1))
    print(f"{out}: {kernel} of {image}, {pixels.shape[1]}×{pixels.shape[0]} pixels")
