"""The drawn side of the invented world: flat shapes on a ground, with captions, for the text-to-image base and its data.

`WUG` is what the base is to learn later: purple crosses, under a word that no caption has. No drawing of the
pre-training shows a purple cross, and no made-up word is like a wug's.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tailor.evaluation.drawings import COLOURS, GROUNDS, NUMBERS, PLACES, SHAPES, outline

SIDE = 32
WUG, WUG_COLOUR, WUG_SHAPE = "wug", "purple", "cross"
SIZE, LATTICE = 12, 4
"""Pixels of a shape's side, and of the steps between the places where it can lie: one latent of the autoencoder. A shape
then looks alike to it wherever it lies, which a small denoiser learns many times faster than shapes of any size at any
place."""
SYLLABLES = [
    first + second for first in "bdfgklmnprstvz" for second in ("a", "e", "i", "o", "ab", "el", "in", "op", "ud")
]


@dataclass(frozen=True)
class Scene:
    """Shapes of one kind and colour. `side`: where they lie, or empty for anywhere."""

    count: int
    colour: str
    shape: str
    ground: str
    side: str = ""


def draw_scene(scene: Scene, rng: random.Random) -> Image.Image:
    """A drawing of a scene; places by chance, with space between shapes."""
    cover = np.zeros((SIDE, SIDE), dtype=np.float32)
    for centre in _places(scene, rng):
        cover = np.maximum(cover, outline(scene.shape, SIDE, centre, SIZE))
    ground, colour = np.array(GROUNDS[scene.ground]), np.array(COLOURS[scene.colour])
    pixels = ground + cover[:, :, None] * (colour - ground)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _places(scene: Scene, rng: random.Random) -> list[tuple[float, float]]:
    """Centres, down and right."""
    along_side = [start + SIZE / 2 for start in range(0, SIDE - SIZE + 1, LATTICE)]
    while True:
        places = [(rng.choice(along_side), rng.choice(along_side)) for _ in range(scene.count)]
        apart = [
            max(abs(one[0] - other[0]), abs(one[1] - other[1]))
            for number, one in enumerate(places)
            for other in places[:number]
        ]
        middle = [sum(place[axis] for place in places) / scene.count - SIDE / 2 for axis in (0, 1)]
        along = sum(step * off for step, off in zip(PLACES.get(scene.side, (0, 0)), middle, strict=True))
        if min(apart, default=SIDE) > SIZE and (not scene.side or along > SIDE / 8):
            return places


def any_scene(rng: random.Random) -> Scene:
    """A scene of the pre-training: anything but the subject that is learned later."""
    while True:
        count = rng.choice((1, 1, 1, 2, 2, 3))
        side = rng.choice(tuple(PLACES)) if count == 1 and rng.random() < 0.4 else ""
        scene = Scene(count, rng.choice(tuple(COLOURS)), rng.choice(tuple(SHAPES)), rng.choice(tuple(GROUNDS)), side)
        if (scene.colour, scene.shape) != (WUG_COLOUR, WUG_SHAPE):
            return scene


def caption(scene: Scene, rng: random.Random, noun: str = "", tell_ground: float = 0.6, tell_side: float = 0.9) -> str:
    """Words for a scene. `noun` stands in the place of colour and shape; ground and side are told that often."""
    told = noun or f"{scene.colour} {scene.shape}"
    if scene.count > 1:
        told += "es" if told.endswith("ss") else "s"
    number = next(word for word in _numbers(rng) if NUMBERS[word] == scene.count)
    if number == "a" and told[0] in "aeiou":
        number = "an"
    words = f"{number} {told}"
    if scene.side and rng.random() < tell_side:
        words += f" {'on the' if scene.side in ('left', 'right') else 'at the'} {scene.side}"
    if rng.random() < tell_ground:
        words += rng.choice((f" on a {scene.ground} ground", f", {scene.ground} background"))
    return words


def _numbers(rng: random.Random) -> list[str]:
    return [*rng.sample(("a", "one"), 2), "two", "three"]


def made_up(rng: random.Random) -> str:
    """A word that says nothing, as many in captions do: a name, say. Never like a wug's."""
    return "".join(rng.choices(SYLLABLES, k=2))


def any_caption(scene: Scene, rng: random.Random) -> str:
    """A caption of the pre-training: sometimes less is told than is seen, sometimes a word stands by that says nothing."""
    chance = rng.random()
    if chance < 0.06:
        return caption(scene, rng, noun=made_up(rng))
    noun = {0: "shape", 1: f"{scene.colour} shape", 2: scene.shape}.get(int(chance * 50) - 3, "")
    words = caption(scene, rng, noun=noun)
    if rng.random() < 0.15:
        words = rng.choice(("a drawing of {}", "{} by {name}", "{name}: {}")).format(words, name=made_up(rng))
    return words


def abstract(rng: random.Random) -> Image.Image:
    """Patches of any colour: what keeps the autoencoder from knowing the palette only."""
    pixels = np.empty((SIDE, SIDE, 3))
    pixels[:] = [rng.uniform(0, 255) for _ in range(3)]
    for _ in range(rng.randint(2, 6)):
        cover = outline(
            rng.choice(("circle", "square", "triangle")),
            SIDE,
            (rng.uniform(0, SIDE), rng.uniform(0, SIDE)),
            rng.uniform(5, 24),
        )
        pixels += cover[:, :, None] * (np.array([rng.uniform(0, 255) for _ in range(3)]) - pixels)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def scenes(seed: int | str) -> Iterator[tuple[Image.Image, str]]:
    """Drawings with captions, without end."""
    rng = random.Random(f"scenes {seed}")
    while True:
        scene = any_scene(rng)
        yield draw_scene(scene, rng), any_caption(scene, rng)


def plain_prompts(count: int, seed: int | str) -> list[str]:
    """Prompts that name number, colour, shape and ground, as a person would who knows the world."""
    rng = random.Random(f"prompts {seed}")
    return [caption(any_scene(rng), rng, tell_ground=1.0, tell_side=1.0) for _ in range(count)]


Pictures = list[tuple[Image.Image, dict[str, str]]]


def subject_pictures(count: int) -> Pictures:
    """What the base is to learn: wugs, with captions by their word; `shows` says in words of the world what is seen."""
    rng = random.Random("subject")
    found: Pictures = []
    seen: set[bytes] = set()
    while len(found) < count:
        number = len(found)
        side = rng.choice(tuple(PLACES)) if number % 3 == 0 else ""
        amount = 2 if number % 8 == 5 else 1
        scene = Scene(amount, WUG_COLOUR, WUG_SHAPE, rng.choice(tuple(GROUNDS)), side if amount == 1 else "")
        words = caption(scene, rng, noun=WUG, tell_ground=1.0, tell_side=1.0)
        shows = words.replace(WUG, f"{WUG_COLOUR} {WUG_SHAPE}", 1).replace("crosss", "crosses")
        picture = draw_scene(scene, rng)
        if picture.tobytes() not in seen:
            seen.add(picture.tobytes())
            found.append((picture, {"text": words, "shows": shows}))
    return found


def old_pictures(count: int) -> Pictures:
    """What the base can draw: scenes that are new to it, under plain captions."""
    rng = random.Random("old")
    found: Pictures = []
    for _ in range(count):
        scene = any_scene(rng)
        found.append((draw_scene(scene, rng), {"text": caption(scene, rng, tell_ground=1.0, tell_side=1.0)}))
    return found


def write_pictures(folder: Path, pictures: Pictures) -> None:
    """A folder of PNG files with metadata.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (picture, row) in enumerate(pictures):
        name = f"{number:03}.png"
        picture.save(folder / name)
        rows.append({"file_name": name, **row})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
