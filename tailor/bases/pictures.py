"""Pictures as a pipeline takes them: upright, RGB, and of a size that its layers divide evenly."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tailor.bases.with_diffusers import Image, ImageOps, UnidentifiedImageError
from tailor.core.errors import refuse

LONGEST_SHAPE = 2.0
"""The most that a bucket is longer than wide, or wider than long: beyond it a picture loses its ends."""

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class Picture:
    """A picture that was found whole. `digest` is of its file's bytes, `size` of the upright picture."""

    path: str
    digest: str
    size: Size


@dataclass(frozen=True)
class View:
    """How a picture is shown: scaled to cover `size`, then cut at `offset` (left, top) of what stands over."""

    picture: Picture
    size: Size
    scaled: Size
    offset: tuple[int, int]
    mirrored: bool = False

    @property
    def key(self) -> str:
        """What the pixels are a function of."""
        return f"{self.picture.digest} {self.size} {self.scaled} {self.offset} {self.mirrored}"


def inspect(path: str) -> Picture:
    """A picture's digest and upright size; raises `RowRefused` where it cannot be read to its last byte."""
    return Picture(path, hashlib.sha256(_bytes(path)).hexdigest(), _upright(path).size)


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise refuse("broken_image", f"{Path(path).name} cannot be read: {error.strerror}") from None


def _upright(path: str) -> Image.Image:
    """The whole picture, turned as its camera says, in RGB; what is transparent is white."""
    name = Path(path).name
    try:
        with Image.open(path) as opened:
            opened.load()
            turned = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError:
        raise refuse("broken_image", f"{name} is no picture of a known kind") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise refuse("broken_image", f"{name} is broken: {error}") from None
    if "A" in turned.getbands() or "transparency" in turned.info:
        turned = turned.convert("RGBA")
        ground = Image.new("RGBA", turned.size, "white")
        turned = Image.alpha_composite(ground, turned)
    return turned.convert("RGB")


def bucket_sizes(resolution: int, step: int) -> list[Size]:
    """Sizes of about resolution² pixels, sides multiples of `step`, the square first."""
    side = max(step, resolution // step * step)
    sizes = [(side, side)]
    for width in range(step, int(side * LONGEST_SHAPE) + 1, step):
        height = max(step, round(side * side / width / step) * step)
        if width != height and max(width / height, height / width) <= LONGEST_SHAPE:
            sizes.append((width, height))
    return list(dict.fromkeys(sizes))


def nearest(size: Size, buckets: Iterable[Size]) -> Size:
    """The bucket whose shape is most alike; the first among equals."""
    shape = np.log(size[0] / size[1])
    return min(buckets, key=lambda bucket: abs(np.log(bucket[0] / bucket[1]) - shape))


def view_of(picture: Picture, size: Size, at: tuple[float, float] = (0.5, 0.5), mirrored: bool = False) -> View:
    """A picture shown at a size; `at`: where between the two edges the cut lies, 0.5 for the middle."""
    factor = max(size[0] / picture.size[0], size[1] / picture.size[1])
    scaled = (max(size[0], round(picture.size[0] * factor)), max(size[1], round(picture.size[1] * factor)))
    left, top = (int(share * (whole - kept)) for share, whole, kept in zip(at, scaled, size, strict=True))
    return View(picture, size, scaled, (left, top), mirrored)


def pixels_of(view: View) -> torch.Tensor:
    """(3, height, width) in -1..1; raises `RowRefused` where the file is no longer there or whole."""
    shown = _upright(view.picture.path).resize(view.scaled, Image.Resampling.LANCZOS)
    left, top = view.offset
    shown = shown.crop((left, top, left + view.size[0], top + view.size[1]))
    if view.mirrored:
        shown = ImageOps.mirror(shown)
    return torch.from_numpy(np.array(shown)).permute(2, 0, 1).float() / 127.5 - 1
