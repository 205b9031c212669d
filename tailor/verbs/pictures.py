"""What verbs do with pipelines alone: what is told of noisy latents for a proof, and pictures written to files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tailor.bases.loading import Source
from tailor.core import registry
from tailor.core.contracts import UNTRAINED, Batch, EncodeOptions, OutputSpec
from tailor.core.examples import Features
from tailor.evaluation.picture_proof import PictureProbe, PictureRow
from tailor.evaluation.proof import Logits, Proof, judge, run_stock

THINGS = (
    "a dog",
    "a red house",
    "two trees",
    "a person",
    "the sea",
    "a cup on a table",
    "a street at night",
    "a shape",
)
LATENT_SIDE = 32
"""Of the noise that an artefact is proved on without its pictures: enough to tell, and quick on a CPU."""


@torch.no_grad()
def told_rows(
    base: Any, model: Any, features: Sequence[Features], output: OutputSpec, least: int
) -> tuple[list[PictureRow], Logits]:
    """At least so many questions about held-out pictures, each alone, and the model's answers in fp32 on the CPU."""
    model.eval().float().cpu()
    for part in base.pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.float().cpu()
    rows: list[PictureRow] = []
    trained: dict[int, torch.Tensor] = {}
    each = -(-least // len(features))
    for place, one in enumerate(base.draw(list(features), output, UNTRAINED)):
        batch = base.collate([one], output)
        count = len(batch.targets)
        for number in range(each):
            row = (place + number * max(1, count // each)) % count
            caption = base.written(one.target.caption)
            noisy, timestep = batch.inputs["noisy"][row], batch.inputs["timesteps"][row]
            sizes = batch.inputs["sizes"][row]
            inputs = {"noisy": noisy[None], "timesteps": timestep[None], "sizes": sizes[None], "captions": [caption]}
            asked = Batch(inputs, batch.targets[row][None], batch.weights[row][None], torch.empty(0), 1, 1)
            trained[len(rows)] = base.forward(model, asked).logits[0].float()
            rows.append(PictureRow(caption, noisy, float(timestep), sizes.tolist()))
    return rows, trained


def any_rows(below: Source, artefact: Path) -> list[PictureRow]:
    """Questions about noise alone, for a pipeline whose training pictures are not at hand.

    The captions are of common things, and of the words that the artefact has learned.
    """
    base = registry.load("base", below.family)(below, EncodeOptions())
    base.load(OutputSpec("noise"), torch.float32)
    words = base.words_of(artefact)
    captions = [f"{thing} {' '.join(sorted(words))}".strip() for thing in THINGS]
    asked = base.noise_alone(len(captions), LATENT_SIDE)
    return [PictureRow(caption, *question) for caption, question in zip(captions, asked, strict=True)]


def prove_pipeline(folder: Path, below: Source) -> Proof:
    """What a fresh process with stock diffusers tells of noise by the artefact and by its base."""
    probe = PictureProbe(
        artefact=str(folder),
        base=below.location,
        rows=any_rows(below, folder),
        revision=below.options.revision or "main",
        under=below.adapters,
    )
    return judge(run_stock(probe), None)


def write_pictures(pictures: Sequence[Any], prompt: str, folder: Path) -> list[Path]:
    """PNG files named by the prompt, numbered on from those that lie there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(re.findall(r"\w+", prompt.lower()))[:60] or "picture"
    number, files = 1, []
    for picture in pictures:
        while (folder / f"{name}-{number}.png").exists():
            number += 1
        files.append(folder / f"{name}-{number}.png")
        picture.save(files[-1])
    return files
