"""Training pipelines: every step equals a naive one written from diffusers' public classes, and so does its artefact."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, FluxPipeline
from peft import LoraConfig, get_peft_model
from PIL import Image
from tiny import InterruptingReporter, make_recipe, prepare_job
from tiny_pipelines import KINDS, captioned, make, picture, saved

from examples import plain_diffusion_lora as plain
from tailor.bases.noising import Noising, chance, share
from tailor.core.errors import Interrupted
from tailor.core.reporting import Reporter
from tailor.engine.loop import Job, fit
from tailor.recipe.recipe import Recipe

STEPS, CLOSE = 4, 1e-5
PLAIN_LORA = {"name": "lora", "rank": 4, "alpha": 8}


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captioned pictures of the size that the pipelines draw."""
    return captioned(tmp_path_factory.mktemp("pictures") / "squares", 6, ((32, 32),))


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline of a kind, made once."""
    root = tmp_path_factory.mktemp("pipelines")
    return lambda kind: root / kind if (root / kind).exists() else saved(kind, root / kind)


def recipe_of(base: Path, data: Path, output: Path, method: Any = PLAIN_LORA, **objective: Any) -> Recipe:
    """Few steps at a constant rate."""
    return make_recipe(
        base,
        data,
        output,
        method=method,
        objective={"name": "text_to_image", "resolution": 32, **objective},
        train={"max_steps": STEPS, "examples_per_batch": 4, "learning_rate": 1e-3, "optimizer": {"clip": None}},
        splits={"subject": "wug"},
    )


def losses_of(recipe: Recipe) -> tuple[Job, list[float]]:
    """A job and the loss of each of its steps."""
    _, job = prepare_job(recipe)
    fit(job)
    lines = (Path(recipe.output) / "metrics.jsonl").read_text().splitlines()
    return job, [json.loads(line)["loss"] for line in lines]


class Naive:
    """One run by hand, on the pipeline's own parts; chance is drawn by the same keys, everything else is written anew."""

    def __init__(self, base: Path, data: Path, recipe: Recipe, kind: str) -> None:
        lacking = {"text_encoder_3": None, "tokenizer_3": None} if kind == "sd3" else {}
        self.pipeline, self.kind = DiffusionPipeline.from_pretrained(base, dtype=torch.float32, **lacking), kind
        for part in self.pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False)
        self.shown = plain.read(data, 32)
        self.flow = kind in ("sd3", "flux")
        scheduler = FlowMatchEulerDiscreteScheduler if self.flow else DDPMScheduler
        self.schedule = scheduler.from_config(self.pipeline.scheduler.config)
        self.part = "transformer" if self.flow else "unet"

    def lora(self, rank: int, alpha: float) -> list[torch.nn.Parameter]:
        """LoRA on every linear map of the denoiser."""
        denoiser = getattr(self.pipeline, self.part)
        maps = (torch.nn.Linear, torch.nn.Conv2d)
        targets = [name for name, module in denoiser.named_modules() if isinstance(module, maps)]
        torch.manual_seed(0)
        adapted = get_peft_model(denoiser, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))
        self.model = adapted
        return [value for value in adapted.parameters() if value.requires_grad]

    def latents(self, pixels: torch.Tensor, key: tuple[int, int, str]) -> torch.Tensor:
        """As the autoencoder spreads them, scaled."""
        config = self.pipeline.vae.config
        with torch.no_grad():
            spread = self.pipeline.vae.encode(pixels[None]).latent_dist
        drawn = spread.mean[0] + spread.std[0] * torch.randn(spread.mean[0].shape, generator=chance(key, "latents"))
        return (drawn - (config.shift_factor or 0.0)) * config.scaling_factor

    def place(self, key: tuple[int, int, str]) -> int:
        """Uniform; logit-normal where noise flows."""
        if not self.flow:
            return int(share(key, "timestep") * 1000)
        drawn = torch.randn((), generator=chance(key, "timestep"), dtype=torch.float64)
        return int(torch.sigmoid(drawn) * 1000)

    def errors(self, pixels: Sequence[torch.Tensor], captions: Sequence[str], keys: Sequence[Any]) -> torch.Tensor:
        """(rows,) mean squared errors."""
        clean = torch.stack([self.latents(one, key) for one, key in zip(pixels, keys, strict=True)])
        noise = torch.stack([torch.randn(clean[0].shape, generator=chance(key, "noise")) for key in keys])
        places = torch.tensor([self.place(key) for key in keys])
        if self.flow:
            sigmas = self.schedule.sigmas[places].view(-1, 1, 1, 1)
            noisy, target, times = (1 - sigmas) * clean + sigmas * noise, noise - clean, self.schedule.timesteps[places]
        else:
            noisy, times = self.schedule.add_noise(clean, noise, places), places
            velocity = self.schedule.config.prediction_type == "v_prediction"
            target = self.schedule.get_velocity(clean, noise, places) if velocity else noise
        return (self.told(noisy, times, list(captions)) - target).square().flatten(1).mean(1)

    def told(self, noisy: torch.Tensor, times: torch.Tensor, captions: list[str]) -> torch.Tensor:
        """The denoiser's answer, each kind called by hand."""
        pipeline, cpu, rows = self.pipeline, torch.device("cpu"), len(noisy)
        if self.kind in ("sd", "sdv"):
            states = pipeline.encode_prompt(captions, cpu, 1, False)[0]
            return self.model(noisy, times, encoder_hidden_states=states).sample
        if self.kind == "sdxl":
            states, _, pooled, _ = pipeline.encode_prompt(captions, device=cpu, do_classifier_free_guidance=False)
            added = {"text_embeds": pooled, "time_ids": torch.tensor([[32, 32, 0, 0, 32, 32]] * rows)}
            return self.model(noisy, times, encoder_hidden_states=states, added_cond_kwargs=added).sample
        if self.kind == "sd3":
            states, _, pooled, _ = pipeline.encode_prompt(
                captions, captions, captions, device=cpu, do_classifier_free_guidance=False
            )
            return self.model(
                hidden_states=noisy, timestep=times, encoder_hidden_states=states, pooled_projections=pooled
            ).sample
        states, pooled, text_ids = pipeline.encode_prompt(captions)
        packed = FluxPipeline._pack_latents(noisy, *noisy.shape)
        ids = FluxPipeline._prepare_latent_image_ids(rows, noisy.shape[2] // 2, noisy.shape[3] // 2, cpu, torch.float32)
        asked = {"hidden_states": packed, "encoder_hidden_states": states, "pooled_projections": pooled}
        packed = self.model(timestep=times / 1000, txt_ids=text_ids, img_ids=ids, **asked).sample
        return FluxPipeline._unpack_latents(packed, noisy.shape[2], noisy.shape[3], 1)

    def run(
        self, learned: list[torch.nn.Parameter], loss_of: Callable[[int, list[plain.Shown]], torch.Tensor]
    ) -> list[float]:
        """The loss of each step."""
        optimizer = torch.optim.AdamW(learned, lr=1e-3, weight_decay=0.0)
        losses = []
        for step in range(STEPS):
            epoch, indices = plain.batch_of(plain.Settings(), step, len(self.shown))
            loss = loss_of(epoch, [self.shown[index] for index in indices])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def plainly(self, epoch: int, batch: list[plain.Shown]) -> torch.Tensor:
        """The mean over a batch."""
        keys = [(0, epoch, one.id) for one in batch]
        return self.errors([one.pixels for one in batch], [one.caption for one in batch], keys).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_lora_equals_the_naive_steps(
    kind: str, pipelines: Callable[[str], Path], squares: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(pipelines(kind), squares, tmp_path / "run")
    _, losses = losses_of(recipe)
    naive = Naive(pipelines(kind), squares, recipe, kind)
    assert losses == pytest.approx(naive.run(naive.lora(4, 8), naive.plainly), abs=CLOSE)
    assert losses[0] != losses[-1]


def test_the_plain_example_is_the_same_run(pipelines: Callable[[str], Path], squares: Path, tmp_path: Path) -> None:
    settings = plain.Settings(steps=STEPS, learning_rate=1e-3, rank=4, alpha=8)
    unet, losses = plain.train(str(pipelines("sd")), squares, settings)
    recipe = recipe_of(pipelines("sd"), squares, tmp_path / "run")
    train = recipe.train.model_copy(update={"optimizer": recipe.train.optimizer.model_copy(update={"clip": 1.0})})
    job, ours = losses_of(recipe.model_copy(update={"train": train}))
    assert ours == pytest.approx(losses, abs=CLOSE)
    plain.save(unet, settings, tmp_path / "plain")
    (tmp_path / "ours").mkdir()
    job.attached.save(tmp_path / "ours")
    both = [_noise_told(pipelines("sd"), tmp_path / name) for name in ("plain", "ours")]
    assert torch.allclose(*both, atol=1e-4)
    assert not torch.allclose(both[0], _noise_told(pipelines("sd"), None), atol=1e-2)


def _noise_told(base: Path, lora: Path | None) -> torch.Tensor:
    pipeline = DiffusionPipeline.from_pretrained(base, dtype=torch.float32)
    if lora is not None:
        pipeline.load_lora_weights(str(lora))
    states = pipeline.encode_prompt(["a wug red 0"], torch.device("cpu"), 1, False)[0]
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return pipeline.unet(noisy, 500, encoder_hidden_states=states).sample


def test_prior_preservation_equals_the_naive_steps(
    pipelines: Callable[[str], Path], squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = plain.read(captioned(tmp_path / "prior", 3, ((32, 32),)), 32)
    monkeypatch.setattr(
        "tailor.bases.latents.paint", lambda _, __, seeds, *___, **____: [picture(one % 3, (32, 32)) for one in seeds]
    )
    prompts = ["a shape", "a thing"]
    prior = {"prompt": prompts, "pictures": 3, "weight": 0.5}
    recipe = recipe_of(pipelines("sd"), squares, tmp_path / "run", prior=prior)
    job, losses = losses_of(recipe)
    assert [Path(one.picture.path).name for one in job.base._prior] == ["0000.png", "0001.png", "0002.png"]
    naive = Naive(pipelines("sd"), squares, recipe, "sd")

    def loss_of(epoch: int, batch: list[plain.Shown]) -> torch.Tensor:
        chosen = [int(share((0, epoch, one.id), "prior") * 3) for one in batch]
        # the base draws number n from seed 20000 + n, and 20000 leaves 2 when divided by 3
        beside = [drawn[(20_000 + number) % 3].pixels for number in chosen]
        keys = [(0, epoch, f"{one.id} prior") for one in batch]
        kept = naive.errors(beside, [prompts[number % 2] for number in chosen], keys).mean()
        return naive.plainly(epoch, batch) + 0.5 * kept

    assert losses == pytest.approx(naive.run(naive.lora(4, 8), loss_of), abs=CLOSE)


def test_the_prior_is_what_the_base_draws_for_each_prompt(
    pipelines: Callable[[str], Path], squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    prompts = ["a shape", "a thing"]
    prior = {"prompt": prompts, "pictures": 5, "steps": 3, "guidance": 2.0}
    recipe = recipe_of(pipelines("sd"), squares, tmp_path / "run", prior=prior)
    job, _ = losses_of(recipe)
    stock = DiffusionPipeline.from_pretrained(pipelines("sd"), dtype=torch.float32)
    assert len(job.base._prior) == 5
    for number, kept in enumerate(job.base._prior):
        seed = torch.Generator().manual_seed(20_000 + number)
        (alone,) = stock(prompts[number % 2], generator=seed, num_inference_steps=3, guidance_scale=2.0).images
        off = np.asarray(alone, dtype=int) - np.asarray(Image.open(kept.picture.path), dtype=int)
        assert kept.prompt == prompts[number % 2]
        assert abs(off).max() <= 2  # alone and beside others, which rounds otherwise
    lost = Path(job.base._prior[2].picture.path)
    before = lost.read_bytes()
    lost.unlink()
    losses_of(recipe)
    assert lost.read_bytes() == before
    monkeypatch.setattr("tailor.bases.latents.paint", lambda *_, **__: pytest.fail("drawn twice"))
    losses_of(recipe)


def test_textual_inversion_equals_the_naive_steps(
    pipelines: Callable[[str], Path], squares: Path, tmp_path: Path
) -> None:
    method = {"name": "soft_prompt", "tokens": 2, "text": "red"}
    recipe = recipe_of(pipelines("sd"), squares, tmp_path / "run", method)
    job, losses = losses_of(recipe)
    naive = Naive(pipelines("sd"), squares, recipe, "sd")
    encoder, tokenizer = naive.pipeline.text_encoder, naive.pipeline.tokenizer
    start = tokenizer("red", add_special_tokens=False)["input_ids"][:2]
    tokenizer.add_tokens(["<wug>", "<wug>_1"])
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    table = encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[-2:] = table[start]
    table.requires_grad_(True)
    table.register_hook(lambda grad: torch.cat([torch.zeros_like(grad[:-2]), grad[-2:]]))
    naive.model = naive.pipeline.unet
    naive.shown = [dataclasses.replace(one, caption=one.caption.replace("wug", "<wug>")) for one in naive.shown]
    assert losses == pytest.approx(naive.run([table], naive.plainly), abs=CLOSE)
    job.attached.save(tmp_path)
    fresh = DiffusionPipeline.from_pretrained(pipelines("sd"), dtype=torch.float32)
    fresh.load_textual_inversion(str(tmp_path))
    assert torch.allclose(fresh.text_encoder.get_input_embeddings().weight[-2:], table[-2:], atol=1e-6)


def test_text_encoders_learn_where_the_recipe_says_so(
    pipelines: Callable[[str], Path], squares: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(pipelines("sdxl"), squares, tmp_path / "run", text_encoder=True)
    job, _ = losses_of(recipe)
    parts = {name.split(".")[2] for name in job.attached.trainable()}
    assert parts == {"unet", "text_encoder", "text_encoder_2"}
    job.attached.save(tmp_path)
    fresh = DiffusionPipeline.from_pretrained(pipelines("sdxl"), dtype=torch.float32)
    before = fresh.encode_prompt(["a wug"], device="cpu", do_classifier_free_guidance=False)[0]
    fresh.load_lora_weights(str(tmp_path))
    after = fresh.encode_prompt(["a wug"], device="cpu", do_classifier_free_guidance=False)[0]
    live = job.base.pipeline.encode_prompt(["a wug"], device="cpu", do_classifier_free_guidance=False)[0]
    assert torch.allclose(after, live, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-4)


def test_timesteps_weigh_by_their_capped_signal_to_noise_ratio() -> None:
    for kind in ("sd", "sdv"):
        noising = Noising(make(kind).scheduler)
        places = torch.tensor([0, 100, 500, 999])
        alphas = noising.scheduler.alphas_cumprod[places]
        snr = alphas / (1 - alphas)
        expected = snr.clamp(max=5) / (snr if kind == "sd" else snr + 1)
        assert torch.allclose(noising.weights(places, 5.0), expected, rtol=1e-4)
        assert torch.equal(noising.weights(places, None), torch.ones(4))


def test_chance_is_an_examples_own(pipelines: Callable[[str], Path], squares: Path, tmp_path: Path) -> None:
    """Neither its neighbours nor what was kept on disk change what is shown of a picture."""
    _, job = prepare_job(recipe_of(pipelines("sd"), squares, tmp_path / "run", flip=True, caption_dropout=0.5))
    base, output = job.base, job.output
    seen = base.draw([job.train[index] for index in range(4)], output, (0, 3))
    together = base.collate(seen, output)
    base.reading.once = False
    for index, one in enumerate(seen):
        alone = base.collate([one], output)
        assert torch.allclose(alone.inputs["noisy"][0], together.inputs["noisy"][index], atol=1e-6)
        assert torch.equal(alone.targets[0], together.targets[index])
    assert {one.target.caption == "" for one in seen} == {True, False} or len({one.target.view for one in seen}) == 4


def test_resume_is_bit_identical(pipelines: Callable[[str], Path], squares: Path, tmp_path: Path) -> None:
    def run(folder: Path, reporter: Reporter) -> None:
        recipe = recipe_of(pipelines("sd"), squares, folder, min_snr=5.0, crop="random")
        train = recipe.train.model_copy(update={"checkpoint_every": 1})
        _, job = prepare_job(recipe.model_copy(update={"train": train}), reporter)
        fit(job)

    run(tmp_path / "whole", Reporter(quiet=True))
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", InterruptingReporter(at=2))
    run(tmp_path / "parts", Reporter(quiet=True))
    for file in sorted((tmp_path / "whole").glob("**/*.safetensors")):
        other = tmp_path / "parts" / file.relative_to(tmp_path / "whole")
        assert file.read_bytes() == other.read_bytes()
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
