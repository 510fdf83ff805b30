"""Reading and writing image files. A file from outside is data that may be damaged, hostile or not an image at all."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from juanji.errors import ArgumentError, DataError
from juanji.graph import Array
from juanji.interop.files import write_atomically

# No others are opened: some decoders run programs of their own (EPS is handed to Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp")
# Images too, which need other programs.
OTHER_ENDINGS = (
    ".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".psd", ".svg", ".tga", ".eps", ".dng", ".cr2", ".cr3", ".nef",
    ".arw", ".orf", ".rw2", ".raf", ".ppm", ".pgm", ".dcm", ".ico",
)  # fmt: skip
ORIENTATION = 0x0112  # in EXIF; from 5 on height and width change places
# What Pillow opens, by mode: the mode to convert to first, and the value that is white.
MODES = {
    "1": ("L", 255), "L": ("L", 255), "LA": ("LA", 255), "La": ("LA", 255),
    "RGB": ("RGB", 255), "RGBX": ("RGB", 255), "RGBA": ("RGBA", 255), "RGBa": ("RGBA", 255),
    "YCbCr": ("RGB", 255), "CMYK": ("RGB", 255),
    "I;16": ("I;16", 65535), "I;16L": ("I;16L", 65535), "I;16B": ("I;16B", 65535),
}  # fmt: skip
# Where a palette, or one colour that stands for transparency, has to be looked up first.
WITH_PALETTE = {"P": "RGB", "PA": "RGBA"}
WITH_TRANSPARENCY = {"P": "RGBA", "PA": "RGBA", "L": "LA", "RGB": "RGBA"}
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return name.lower().endswith(ENDINGS)


def has_other_format(name: str) -> bool:
    """Whether a file is, by its name, an image of a format that is not read."""
    return name.lower().endswith(OTHER_ENDINGS)


def read_image(
    path: str | Path | bytes, channels: int | None = None, size: tuple[int, int] | None = None, name: str = "image"
) -> Array:
    """The image in a file as float32 (H, W, C) in 0…1, upright as its EXIF orientation says.

    path      the file, or its content
    channels  1 grey, 3 colour, 4 colour with transparency; the file's own by default (1, 3 or 4). Where transparency
              is dropped, the image is laid on white.
    size      (H, W) to stretch it to, averaging where it gets smaller; its own by default
    name      what errors call it where only the content is given

    Grey, colour, palette, transparent and 16-bit files are read, of an animation the first picture. Raises DataError,
    naming the file, for one that is missing, truncated, damaged, no image, or too large to be meant well.
    """
    if channels not in (None, 1, 3, 4):
        raise ArgumentError("read_image: bad channels", received=str(channels), rule="1, 3, 4 or None")
    if size is not None and min(size) < 1:
        raise ArgumentError("read_image: bad size", received=str(size), rule="(H, W), at least 1 each")
    with opened(path, name) as (image, named):
        image = as_channels(pixels(upright(image), named), channels)
    return image if size is None else stretch(image, size)


@contextlib.contextmanager
def opened(file: str | Path | bytes, name: str = "image") -> Iterator[tuple[Any, str]]:
    """A Pillow image that is not decoded yet, and what it is called; what goes wrong with it is a DataError."""
    from PIL import Image

    named = name if isinstance(file, bytes) else str(file)
    if not isinstance(file, bytes) and Path(file).is_dir():
        raise DataError(f"{named}: this is a folder", rule="image files", fix=f"name them, as in {Path(file, '*.png')}")
    if has_other_format(named):  # cameras' raw images begin as TIFF does, with a thumbnail
        raise DataError(
            f"{named}: images of this format are not read",
            received=Path(named).suffix,
            rule="files whose names end in " + ", ".join(ENDINGS),
            fix="save it as a JPEG or PNG file",
        )
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=FORMATS) as image:
            check_extent(image, named)
            yield image, named
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{named}: there is no such image file", fix="check the path") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_many_pixels(named, str(error)) from None
    # A damaged file can make a decoder raise anything.
    except Exception as error:
        raise unreadable(named, file, error) from None


def check_extent(image: Any, name: str) -> None:
    """Refuse what Pillow only warns of: to make its warning an error would change the filters of all threads."""
    from PIL import Image

    height, width, most = image.height, image.width, Image.MAX_IMAGE_PIXELS
    if most is not None and height * width > most:
        raise too_many_pixels(name, f"{height * width:,} pixels")


def too_many_pixels(name: str, received: str) -> DataError:
    from PIL import Image

    return DataError(
        f"{name}: the image is too large to be read safely",
        received=received,
        rule=f"at most {Image.MAX_IMAGE_PIXELS:,} pixels",
        fix="make it smaller with an image editor",
    )


def unreadable(name: str, file: str | Path | bytes, error: Exception) -> DataError:
    from PIL import UnidentifiedImageError

    reason = str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        empty = not (len(file) if isinstance(file, bytes) else Path(file).stat().st_size)
        reason = "an empty file" if empty else "bytes that begin as no image does"
    return DataError(
        f"{name}: the image cannot be read",
        received=reason,
        rule="a whole image file: PNG, JPEG, BMP, GIF, TIFF or WebP",
        fix="download or export it again",
    )


def upright_size(image: Any) -> tuple[int, int]:
    """Height and width as EXIF turns them, of an image that need not be decoded."""
    turned = image.getexif().get(ORIENTATION, 1) > 4
    return (image.width, image.height) if turned else (image.height, image.width)


def upright(image: Any) -> Any:
    """The image decoded, turned as its EXIF orientation says."""
    from PIL import ImageOps

    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    return image


def looked_up(image: Any, name: str) -> Any:
    """The image with its palette, or the one colour that stands for transparency, looked up: in one of the `MODES`."""
    mode = image.mode
    palettes = WITH_TRANSPARENCY if "transparency" in image.info else WITH_PALETTE
    if mode in palettes:
        image = image.convert(palettes[mode])
    if image.mode not in MODES:
        raise DataError(
            f"{name}: images of this pixel type are not read",
            received=f"Pillow's mode {mode}",
            rule="8 or 16 bits for each channel",
        )
    return image


def pixels(image: Any, name: str) -> Array:
    """The pixels of an image as float32 (H, W, C) in 0…1, with its own channels: 1, 2, 3 or 4."""
    image = looked_up(image, name)
    wanted, white = MODES[image.mode]
    values = np.asarray(image if image.mode == wanted else image.convert(wanted))
    values = values.astype(np.float32) / np.float32(white)
    return values if values.ndim == 3 else values[..., None]


def eight_bits(image: Any, name: str, channels: int) -> Any:
    """The image in Pillow's mode L, RGB or RGBA, for 1, 3 or 4 channels; transparency that is dropped lies on white."""
    from PIL import Image

    image, mode = looked_up(image, name), {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    if MODES[image.mode][1] == 65535:
        image = Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8))
    if image.mode in ("LA", "La", "RGBA", "RGBa") and channels != 4:
        # From a premultiplied mode Pillow converts to its straight twin only.
        image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def as_channels(image: Array, channels: int | None) -> Array:
    """An image (H, W, 1 … 4), grey or colour, with transparency last in the even ones, with other channels."""
    opaque, alpha = (image, None) if image.shape[-1] % 2 else (image[..., :-1], image[..., -1:])
    if channels is None:
        channels = opaque.shape[-1] if alpha is None else 4
    if alpha is not None and channels != 4:
        opaque = opaque * alpha + (1 - alpha)
    if channels == 1 and opaque.shape[-1] == 3:
        return (opaque @ GREY)[..., None]
    if channels > 1 and opaque.shape[-1] == 1:
        opaque = np.repeat(opaque, 3, axis=-1)
    if channels == 4:
        return np.concatenate([opaque, np.ones_like(opaque[..., :1]) if alpha is None else alpha], axis=-1)
    return opaque


def stretch(image: Array, size: tuple[int, int]) -> Array:
    """The image (H, W, C) at another size (H, W); bilinear, and averaging where it gets smaller."""
    from PIL import Image

    height, width = size
    if image.shape[:2] == (height, width):
        return image
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(image, -1, 0))
    resized = (plane.resize((width, height), Image.Resampling.BILINEAR) for plane in planes)
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)


def write_image(path: str | Path, image: Array) -> None:
    """Write an image (H, W, C) with C = 1, 3 or 4 as 8 bits a channel, in the format the file's ending names.

    Values outside 0…1 are cut off. Raises DataError for a format that cannot hold the image, or a file that cannot be
    written; an image that was there before is still there then.
    """
    from PIL import Image

    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4):
        raise ArgumentError(
            "write_image: not an image", received=f"shape {image.shape}", rule="(H, W, C), C = 1, 3 or 4"
        )
    values = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    encoded, ending = io.BytesIO(), Path(path).suffix.lower()
    try:
        Image.fromarray(values[..., 0] if values.shape[-1] == 1 else values).save(
            encoded, Image.registered_extensions()[ending]
        )
    except (KeyError, OSError, ValueError) as error:
        raise DataError(
            f"{path}: the image cannot be written in this format",
            received=f"ending {ending!r}, {values.shape[-1]} channels" if isinstance(error, KeyError) else str(error),
            rule="an ending that Pillow can write",
            fix=".png holds every image; JPEG has no transparency",
        ) from None
    write_atomically(path, encoded.getvalue())
