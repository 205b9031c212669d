"""Reads a drawing of the embedded world: how many shapes, of what kind and colour, where, on what ground.

The drawings that `pocket:diffusion` makes hold flat shapes of one kind and colour, so that what was asked for can be
*counted* in what came out: pixels unlike the ground form pieces, a piece's colour is its core's, its kind that of the
most alike outline.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 170, 70),
    "blue": (50, 80, 220),
    "yellow": (245, 220, 60),
    "purple": (150, 60, 190),
    "orange": (240, 120, 20),
}
GROUNDS = {"white": (245, 245, 245), "grey": (140, 140, 140), "black": (20, 20, 20)}
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3}
PLACES = {"left": (0, -1), "right": (0, 1), "top": (-1, 0), "bottom": (1, 0)}
"""Sides of a drawing, as the direction in which a shape lies off the middle: down, right."""
OFF_THE_GROUND, OFF_THE_COLOUR, SMALLEST, OFF_THE_MIDDLE = 80.0, 80.0, 10, 0.08
"""Distances of RGB values beyond which a pixel is not of the ground, and a piece is of no named colour; pixels of the
smallest piece; the share of the side by which a shape has to lie off the middle to be on a side."""
PROFILE = 16
FINE = 4


def _circle(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    draw.ellipse(box, fill=255)


def _square(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    draw.rectangle(box, fill=255)


def _triangle(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    draw.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=255)


def _cross(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    third = (right - left) / 3
    draw.rectangle((left + third, top, right - third, bottom), fill=255)
    draw.rectangle((left, top + third, right, bottom - third), fill=255)


def _ring(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    left, top, right, bottom = box
    width = (right - left) / 4
    draw.ellipse(box, fill=255)
    draw.ellipse((left + width, top + width, right - width, bottom - width), fill=0)


SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, tuple[float, float, float, float]], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
}


def outline(shape: str, side: int, centre: tuple[float, float], size: float) -> np.ndarray:
    """How much of each pixel a shape covers, (side, side) in 0..1; centre (down, right) and size in pixels."""
    picture = Image.new("L", (side * FINE, side * FINE))
    down, right = centre
    edges = (right - size / 2, down - size / 2, right + size / 2, down + size / 2)
    SHAPES[shape](ImageDraw.Draw(picture), tuple(FINE * edge for edge in edges))  # type: ignore[arg-type]
    return np.asarray(picture.reduce(FINE), dtype=np.float32) / 255


@dataclass(frozen=True)
class Drawing:
    """What a drawing shows; `colour` or `shape` is empty where the pieces differ, or are like nothing that is known."""

    count: int
    colour: str
    shape: str
    ground: str
    centre: tuple[float, float]
    """The middle of the box around all pieces, down and right, in shares of the side from the middle of the drawing."""


def read_drawing(picture: Image.Image) -> Drawing:
    """What a drawing shows."""
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground = np.median(border, axis=0)
    far = np.linalg.norm(pixels - ground, axis=2)
    # Corners count as touching: a thin triangle's tip hangs on by one.
    pieces, found = ndimage.label(far > OFF_THE_GROUND, structure=np.ones((3, 3)))
    own = [pieces == number for number in range(1, found + 1)]
    own = [piece for piece in own if piece.sum() >= SMALLEST]
    colours = {_colour_of(pixels[piece], far[piece]) for piece in own}
    shapes = {_shape_of(piece, far) for piece in own}
    whole = np.any(own, axis=0) if own else np.zeros(far.shape, dtype=bool)
    box = ndimage.find_objects(whole.astype(int))[0] if own else (slice(0, side) for side in far.shape)
    down, right = ((cut.start + cut.stop) / 2 / side - 0.5 for cut, side in zip(box, far.shape, strict=True))
    return Drawing(
        len(own),
        colours.pop() if len(colours) == 1 else "",
        shapes.pop() if len(shapes) == 1 else "",
        _nearest(ground, GROUNDS, OFF_THE_COLOUR),
        (down, right),
    )


def _colour_of(pixels: np.ndarray, far: np.ndarray) -> str:
    """The name of a piece's colour, by those of its pixels that are least mixed with the ground."""
    return _nearest(np.median(pixels[far >= np.median(far)], axis=0), COLOURS, OFF_THE_COLOUR)


def _nearest(colour: np.ndarray, names: dict[str, tuple[int, int, int]], within: float) -> str:
    distances = {name: float(np.linalg.norm(colour - np.array(known))) for name, known in names.items()}
    name = min(distances, key=lambda known: distances[known])
    return name if distances[name] <= within else ""


def _shape_of(piece: np.ndarray, far: np.ndarray) -> str:
    """The shape whose outline, cut out and scaled to the same grid, differs least."""
    cover = np.where(ndimage.binary_dilation(piece), far, 0)
    cover = np.minimum(cover / np.median(far[piece]), 1)
    profile = _profile(cover, piece)
    differences = {shape: float(np.abs(profile - known).mean()) for shape, known in _profiles()}
    return min(differences, key=lambda shape: differences[shape])


def _profile(cover: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """What a piece covers of its own box, (PROFILE, PROFILE)."""
    rows, columns = ndimage.find_objects(piece.astype(int))[0]
    cut = Image.fromarray((255 * cover[rows, columns]).astype(np.uint8))
    return np.asarray(cut.resize((PROFILE, PROFILE), Image.Resampling.BILINEAR), dtype=np.float32) / 255


@cache
def _profiles() -> tuple[tuple[str, np.ndarray], ...]:
    """Outlines of every shape at sizes and places between pixels."""
    known = []
    for shape in SHAPES:
        for size in (7, 9, 11, 14, 17):
            for shift in (0.0, 0.5):
                cover = outline(shape, 32, (16 + shift, 16 + shift), size)
                known.append((shape, _profile(cover, cover > 0.3)))
    return tuple(known)


def shows(picture: Image.Image, words: str) -> tuple[bool, str]:
    """Whether a drawing shows all that words name of number, colour, shape, ground and side; and what it shows instead."""
    drawing, asked = read_drawing(picture), set(re.findall(r"[a-z]+", words.lower()))
    ground = next((name for name in GROUNDS if name in asked), None)
    colour = next((name for name in COLOURS if name in asked), None)
    shape = next((name for name in SHAPES if asked & {name, f"{name}s", f"{name}es"}), None)
    number = next((NUMBERS[name] for name in ("two", "three", "one", "a", "an") if name in asked), None)
    side = next((name for name in PLACES if name in asked), None)
    right = [
        number in (None, drawing.count),
        colour in (None, drawing.colour),
        shape in (None, drawing.shape),
        ground in (None, drawing.ground),
        side is None or _on_side(drawing.centre, side),
    ]
    told = f"{drawing.count} {drawing.colour or '?'} {drawing.shape or '?'} on {drawing.ground or '?'}"
    return all(right), told


def _on_side(centre: tuple[float, float], side: str) -> bool:
    along = sum(step * off for step, off in zip(PLACES[side], centre, strict=True))
    return along > OFF_THE_MIDDLE


def subject_drawn(row: dict[str, Any], picture: Image.Image) -> dict[str, Any]:
    """As `drawn_as_asked` by colour and shape alone: whether the thing is there, however many of it and wherever."""
    words = re.findall(r"[a-z]+", str(row.get("shows") or row["caption"]).lower())
    things = {*COLOURS, *SHAPES, *(f"{name}{ending}" for name in SHAPES for ending in ("s", "es"))}
    right, told = shows(picture, " ".join(word for word in words if word in things))
    return {"score": float(right), "why": "" if right else told}


def drawn_as_asked(row: dict[str, Any], picture: Image.Image) -> dict[str, Any]:
    """A row's score, 1 or 0: its drawing shows what `shows` names, or where the row has no such column, its caption."""
    right, told = shows(picture, str(row.get("shows") or row["caption"]))
    return {"score": float(right), "why": "" if right else told}
