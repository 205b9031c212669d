"""The drawn side of the invented world: its checker, its embedded pictures, and the base that was pre-trained on it."""

import hashlib
import itertools
import json
import random
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `pocket` is not part of the installed package

from pocket import scenes as world
from pocket.embedded import PICTURES
from pocket.pretrain_diffusion import SAMPLING
from tailor.core.paths import POCKET_FOLDER, embedded_base
from tailor.evaluation.drawings import drawn_as_asked, read_drawing, shows, subject_drawn

FOLDER = embedded_base("diffusion")


def test_the_checker_reads_what_was_drawn() -> None:
    rng = random.Random(5)
    for _ in range(200):
        scene = world.any_scene(rng)
        picture = world.draw_scene(scene, rng)
        read = read_drawing(picture)
        assert (read.count, read.colour, read.shape, read.ground) == (
            scene.count,
            scene.colour,
            scene.shape,
            scene.ground,
        )
        assert shows(picture, world.caption(scene, rng, tell_ground=1.0, tell_side=1.0))[0]


@pytest.mark.parametrize(
    "words",
    ["two red circles", "a blue circle", "a red square", "a red circle, black background", "a red circle on the left"],
)
def test_the_checker_refuses_what_is_otherwise(words: str) -> None:
    picture = world.draw_scene(world.Scene(1, "red", "circle", "white", "right"), random.Random(0))
    assert shows(picture, "a red circle on the right, white background")[0]
    right, told = shows(picture, words)
    assert not right
    assert told == "1 red circle on white"


def test_the_checker_knows_nothing_in_a_smear() -> None:
    picture = Image.new("RGB", (32, 32), "white")
    assert read_drawing(picture).count == 0
    ImageDraw.Draw(picture).line((2, 2, 30, 28), fill=(255, 0, 255), width=3)
    assert read_drawing(picture).colour == ""


def test_pre_training_never_shows_the_subject_or_says_its_word() -> None:
    rng = random.Random("scenes 0")
    for _ in range(5000):
        scene = world.any_scene(rng)
        assert (scene.colour, scene.shape) != (world.WUG_COLOUR, world.WUG_SHAPE)
        assert world.WUG not in world.any_caption(scene, rng)
        assert world.WUG not in world.made_up(rng)


@pytest.mark.parametrize("name", PICTURES)
def test_embedded_pictures_regenerate_and_show_what_they_say(name: str) -> None:
    draw, count, _ = PICTURES[name]
    folder = POCKET_FOLDER / "data" / name
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == count
    for row, (picture, words) in zip(rows, draw(count), strict=True):
        kept = Image.open(folder / row["file_name"])
        assert kept.tobytes() == picture.tobytes()
        assert row == {"file_name": row["file_name"], **words}
        assert drawn_as_asked({"caption": row["text"], **row}, kept)["score"] == 1.0 or name == "subject"
        assert shows(kept, row.get("shows", row["text"]))[0]


def test_embedded_pictures_are_new_to_the_base() -> None:
    seen = {hashlib.sha256(picture.tobytes()).digest() for picture, _ in itertools.islice(world.scenes(0), 2000)}
    subject = {hashlib.sha256(picture.tobytes()).digest() for picture, _ in world.subject_pictures(72)}
    assert len(subject) == 72
    assert not seen & subject


def test_the_base_is_small_and_its_manifest_true() -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) <= 8e6


@pytest.fixture(scope="module")
def drawn() -> tuple[float, int]:
    """The share of 24 prompts that come out right, and how many of eight wugs (never seen in pre-training) look like one."""
    pipeline = StableDiffusionPipeline.from_pretrained(str(FOLDER), dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [*world.plain_prompts(24, "test"), *["a wug on a white ground"] * 8]
    seeds = [torch.Generator().manual_seed(number) for number in range(len(prompts))]
    pictures = pipeline(prompts, generator=seeds, **SAMPLING).images
    right = sum(shows(picture, prompt)[0] for picture, prompt in zip(pictures[:24], prompts, strict=False))
    return right / 24, sum(shows(picture, "a purple cross")[0] for picture in pictures[24:])


def test_the_base_draws_as_often_what_it_is_asked_as_its_manifest_says(drawn: tuple[float, int]) -> None:
    told = json.loads((FOLDER / "manifest.json").read_text())["prompts_right"]
    three_errors = 3 * (told * (1 - told) / 24) ** 0.5  # of a share of 24 pictures
    assert abs(drawn[0] - told) <= three_errors


def test_the_base_draws_most_of_what_it_is_asked_and_no_wug(drawn: tuple[float, int]) -> None:
    """Version 2 stands at two prompts of three; a new one is not to fall behind it."""
    right, wugs = drawn
    assert right >= 0.5
    assert wugs <= 1


def test_a_thing_is_found_however_many_of_it_and_wherever() -> None:
    folder = POCKET_FOLDER / "data" / "drawings"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["text"] == "two green circles on a white ground")
    picture = Image.open(folder / row["file_name"]).convert("RGB")
    asked = {
        "three green circles, black background": 1.0,
        "a green square on a white ground": 0.0,
        "two red circles": 0.0,
    }
    for words, score in asked.items():
        assert subject_drawn({"caption": "a wug", "shows": words}, picture)["score"] == score
        assert drawn_as_asked({"caption": "a wug", "shows": words}, picture)["score"] == 0.0
