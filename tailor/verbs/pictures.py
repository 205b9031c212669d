"""What verbs do with pipelines alone: what is told of noisy latents for a proof, and pictures written to files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tailor.core.contracts import UNTRAINED, Batch, OutputSpec
from tailor.core.examples import Features
from tailor.evaluation.picture_proof import PictureRow
from tailor.evaluation.proof import Logits


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
