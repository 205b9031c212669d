"""Real photos of one subject through every step: `python benchmarks/real_pictures.py DATA` (docs/real-runs.md).

DATA is a folder with `dreambooth_dev/` (photos of google/dreambooth). There are no open weights small enough to be trained
here, so the pipelines are tiny and random, in the shapes of SDXL and SD3: what is shown is that photos go through, that
what is held out is learned, that a resumed run is the same run, and that stock diffusers draws what the run draws; not
that a picture is good. The photos are square, so they are cut to odd sizes first, one of them turned as a camera turns it.
"""

import argparse
import json
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import tailor
from tailor.core.errors import Interrupted

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # for the tiny pipelines made there

from tiny import InterruptingReporter
from tiny_pipelines import saved

KINDS, SUBJECTS = ("sdxl", "sd3"), ("dog", "backpack", "teapot")
SHAPES = (1.0, 0.71, 1.43, 0.53, 1.9, 1.18)
"""Width over height, photo by photo."""
ON_ITS_SIDE = 6
STEPS, BROKEN_OFF = 40, 17
SETTINGS = [
    "objective.name=text_to_image",
    "objective.resolution=64",
    f"train.max_steps={STEPS}",
    "train.examples_per_batch=4",
    "train.learning_rate=5e-3",
    "train.patience=null",
    "evaluate.steps=4",
]


def cut(photos: Path, folder: Path) -> list[tuple[int, int]]:
    """Copies of odd sizes; their widths and heights as files have them."""
    folder.mkdir(parents=True)
    sizes = []
    for number, file in enumerate(sorted(photos.glob("*.jpg"))):
        with Image.open(file) as opened:
            side, shape = opened.size[0], SHAPES[number]
            size = (int(side * min(1, shape)) - 1 - number, int(side / max(1, shape)) - number)
            photo = opened.convert("RGB").crop((0, 0, *size))
        turned = Image.Exif()
        if number == 1:
            turned[0x0112] = ON_ITS_SIDE
        photo.save(folder / file.name, exif=turned, quality=95)
        sizes.append(size)
    return sizes


def fitted(base: Path, photos: Path, output: Path, **how: Any) -> Any:
    """A LoRA run on a subject's photos."""
    data = {"train": str(photos), "dev": 0.2, "test": 0.4}
    method = {"name": "lora", "rank": 4}
    return tailor.fit(base=str(base), data=data, method=method, output=str(output), overrides=SETTINGS, **how)


def resumed_alike(run: Any, base: Path, photos: Path, output: Path) -> bool:
    """Whether a run that is broken off and resumed ends with the same bits as the unbroken one."""
    try:
        fitted(base, photos, output, reporter=InterruptingReporter(BROKEN_OFF))
    except Interrupted:
        again = fitted(base, photos, output, resume=True, reporter=InterruptingReporter())
        name = "model/pytorch_lora_weights.safetensors"
        return (again.path / name).read_bytes() == (run.path / name).read_bytes()
    raise SystemExit("the run was not broken off")


def off_stock(run: Any, base: Path, prompt: str) -> tuple[int, int]:
    """Greatest difference, of 255, between what the run draws and what stock diffusers draws with and without its LoRA."""
    lacking = {"text_encoder_3": None, "tokenizer_3": None} if "sd3" in base.name else {}
    pipeline = DiffusionPipeline.from_pretrained(base, dtype=torch.float32, **lacking)
    pipeline.set_progress_bar_config(disable=True)
    drawn = np.asarray(run.generate(prompt, seed=3), dtype=int)

    def off() -> int:
        stock = pipeline(prompt, generator=[torch.Generator().manual_seed(3)]).images[0]
        return int(np.abs(np.asarray(stock, dtype=int) - drawn).max())

    without = off()
    pipeline.load_lora_weights(str(run.path / "model"))
    return off(), without


def figures(kind: str, subject: str, data: Path, out: Path) -> dict[str, Any]:
    """One subject on one kind of pipeline."""
    base, photos = out / f"tiny-{kind}", out / f"{kind}-photos" / subject
    if not base.exists():
        saved(kind, base)
    sizes = cut(data / "dreambooth_dev" / subject, photos)
    run = fitted(base, photos, out / f"{kind}-{subject}", reporter=InterruptingReporter())
    loss = run.evaluation["tasks"]["default"]["metrics"]["loss"]
    again = tailor.evaluate(run, data=str(photos), reporter=InterruptingReporter())
    with_lora, without = off_stock(run, base, f"a photo of {subject}")
    return {
        "sizes": sizes,
        "loss": {"base": loss["base"], "tuned": loss["tuned"], "n": loss["n"]},
        "loss_of_all": again["tasks"]["default"]["metrics"]["loss"]["delta"],
        "proof": run.proof["passed"] and tailor.prove(run)["passed"],
        "resumed_bit_by_bit": resumed_alike(run, base, photos, out / f"{kind}-{subject}-again"),
        "off_stock": with_lora,
        "off_stock_without_lora": without,
        "seconds": run.summary["train"]["seconds"],
    }


def main() -> None:
    """Every subject on every kind; figures are kept with date and hardware."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            for subject in SUBJECTS:
                found[f"{kind}, {subject}"] = figures(kind, subject, data, Path(folder))
                print(kind, subject, json.dumps(found[f"{kind}, {subject}"]), flush=True)
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    result = {"date": date.today().isoformat(), "machine": machine, "torch": torch.__version__, "figures": found}
    (Path(__file__).parent / "results" / "real_pictures.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
