"""Text-to-image pipelines through diffusers' own classes: captions and pictures in, noise told, pictures out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoTokenizer

from tailor.bases.drawing import (
    Weights,
    load_pipeline,
    own_settings,
    paint,
    read_lora,
    read_words,
    spelled,
    stored_tokens,
    word_files,
    write_lora,
    write_words,
)
from tailor.bases.latents import Encoders
from tailor.bases.loading import Source
from tailor.bases.noising import Key, chance, share
from tailor.bases.pictures import Picture, View, bucket_sizes, inspect, nearest, view_of
from tailor.core.contracts import UNTRAINED, Batch, EncodeOptions, Head, Need, Outputs, OutputSpec
from tailor.core.errors import BaseError, RecipeError, refuse
from tailor.core.examples import Captioned, Example, Features
from tailor.core.noise import NoiseSpec
from tailor.core.reporting import Reporter
from tailor.nn.words import GrownTable

HELD_TIMES = 8
"""Timesteps, spread evenly over the schedule, at which a held-out picture is measured."""
LONGEST_CAPTION = 512


@dataclass(frozen=True)
class Beside:
    """A picture that the base drew for one of the prior's prompts, learned in the same batch."""

    view: View
    prompt: str


@dataclass(frozen=True)
class Shown:
    """A picture and its caption: as found, and once drawn by `key` (seed, epoch) as it is seen this time."""

    picture: Picture
    caption: str
    view: View | None = None
    key: tuple[int, int] = UNTRAINED
    beside: Beside | None = None

    @property
    def held(self) -> bool:
        """Whether it is measured and not learned from."""
        return self.key == UNTRAINED


@dataclass(frozen=True)
class Row:
    """One row of a batch: whose it is, what is shown and told, latents and noise, its place in the schedule, its weight."""

    owner: str
    view: View
    caption: str
    latents: torch.Tensor
    noise: torch.Tensor
    place: int
    weight: float


class DiffusionBase:
    """A pipeline; its denoiser (and its text encoders, where they learn) are the model. Loaded by `load`, not before."""

    family: ClassVar[str] = "diffusion"
    has: ClassVar[frozenset[Need]] = frozenset({"linears", "embeddings", "weights", "new_words"})
    heads: ClassVar[frozenset[Head]] = frozenset({"noise"})
    pools: ClassVar[bool] = False
    text_head: ClassVar[Head] = "noise"
    packing: ClassVar[None] = None
    new_head: ClassVar[bool] = False

    def __init__(self, source: Source, options: EncodeOptions) -> None:
        self.source = source
        self.name = source.name
        self.options = options
        self.tokenizer = _longest_reader(source)
        self.context = min(int(self.tokenizer.model_max_length), LONGEST_CAPTION)
        self.limit = options.max_length or self.context
        self.head: Head = "noise"
        self.pipeline: Any = None
        self.model: Any = None
        self.words: dict[str, str] = {}
        """Words of captions -> the learned tokens that stand for them."""
        self.learns_text = False
        self.encoders: Mapping[type[Example], Callable[[Any], list[Features]]] = {Captioned: self._encode}

    def _encode(self, example: Captioned) -> list[Features]:
        """The caption's tokens, to be counted, and the picture as the target."""
        ids = list(self.tokenizer(example.caption, truncation=False, verbose=False)["input_ids"])
        shown = Shown(inspect(example.image), example.caption)
        return [Features(example.id, ids[: self.limit], target=shown, truncated=max(0, len(ids) - self.limit))]

    # --- weights ---------------------------------------------------------------------------------------------------

    def load(self, output: OutputSpec, dtype: torch.dtype) -> None:
        """Load all parts in `dtype`, the autoencoder in fp32, with the adapters of the source on them."""
        if output.head not in self.heads:
            raise BaseError("a pipeline draws pictures and reads nothing off texts", where=self.name)
        weights: Weights = load_pipeline(self.source, dtype)
        self.pipeline, self.kind, self.noising = weights.pipeline, weights.kind, weights.noising
        self.words = weights.words
        self.noising.check(output.noise)
        self.reading = Encoders(self.pipeline, self.kind, self.source, once=output.noise.once)
        self.learns_text = output.noise.learn_text
        self._compose()

    def _compose(self) -> None:
        """What is trained, under the names that the pipeline gives its parts."""
        parts = [self.kind.part, *(self.text_parts if self.learns_text else ())]
        self.model = Parts({name: getattr(self.pipeline, name) for name in parts}, self.kind.part)

    @property
    def text_parts(self) -> list[str]:
        """Names of the text encoders that the pipeline holds."""
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        return [name for name in names if getattr(self.pipeline, name, None) is not None]

    def head_parameters(self) -> list[str]:
        """No part is new."""
        return []

    def pad_rows(self, reason: str) -> None:
        """Every picture is a row of its own."""

    def learn_words(self, count: int, start: str) -> Mapping[str, torch.nn.Parameter]:
        """Have the subject's word stand for `count` new embeddings in every text encoder, that start as those of a text.

        Raises `RecipeError` where the recipe names no subject, or stock diffusers could not load what is learned.
        """
        subject = (self.options.subject or "").strip().lower()
        if not subject:
            raise RecipeError("a learned word needs the word", where="data.subject", fix="data.subject=WORD")
        if not hasattr(self.pipeline, "load_textual_inversion"):
            raise RecipeError(
                f"diffusers loads no learned words into a {type(self.pipeline).__name__}",
                where="method",
                fix="choose method: lora",
                code="no_such_pair",
            )
        token = f"<{subject}>"
        self.learns_text = True
        for part in self.text_parts:
            tokenizer = getattr(self.pipeline, part.replace("text_encoder", "tokenizer"))
            encoder = getattr(self.pipeline, part)
            if token in tokenizer.get_vocab():
                raise RecipeError(f"this base has a word {token} already", where="data.subject", fix="choose another")
            ids = tokenizer(start, add_special_tokens=False)["input_ids"]
            tokenizer.add_tokens([token, *(f"{token}_{number}" for number in range(1, count))])
            encoder.set_input_embeddings(
                GrownTable(encoder.get_input_embeddings(), (ids * -(-count // len(ids)))[:count])
            )
        self.words = {subject: token}
        self._compose()
        return {name: value for name, value in self.model.named_parameters() if name.endswith(GrownTable.ROWS)}

    # --- batches ---------------------------------------------------------------------------------------------------

    def precompute(
        self, stores: Sequence[Sequence[Features]], output: OutputSpec, place: Any, reporter: Reporter
    ) -> None:
        """Have the frozen autoencoder and text encoders read everything once, and the base draw the prior's pictures."""
        spec = output.noise
        if spec.prior and stores and len(stores[0]):
            self._prior = self.reading.prior(spec, self._side(spec), place, reporter)
        if not self.reading.once:
            return
        rows = [store[index] for store in stores for index in range(len(store))]
        with self.reading.at(place.device):
            reporter.say(f"autoencoder and text encoders read {len(rows)} pictures once")
            for row in rows:
                for mirrored in {False, spec.flip}:
                    self.reading.latents(self._view(row.target, spec, mirrored=mirrored))
                if not self.learns_text:
                    self.reading.told(self.written(row.target.caption))
        self.reading.make_room()

    def draw(self, features: Sequence[Features], output: OutputSpec, key: tuple[int, int]) -> list[Features]:
        """Each picture as it is seen this time: cut, mirrored, without its caption, beside another, by (seed, epoch, id)."""
        return [replace(one, target=self._seen(one, output.noise, key)) for one in features]

    def _seen(self, features: Features, spec: NoiseSpec, key: tuple[int, int]) -> Shown:
        shown: Shown = features.target
        if key == UNTRAINED:
            return replace(shown, view=self._view(shown, spec), key=key)
        own = (*key, features.example_id)
        cut = (share(own, "left"), share(own, "top")) if spec.crop == "random" else (0.5, 0.5)
        view = self._view(shown, spec, cut, mirrored=spec.flip and share(own, "mirror") < 0.5)
        caption = "" if share(own, "caption") < spec.caption_dropout else shown.caption
        beside = None
        if spec.prior:
            other = self._prior[int(share(own, "prior") * len(self._prior))]
            beside = Beside(view_of(other.picture, view.size), other.prompt)
        return replace(shown, caption=caption, view=view, key=key, beside=beside)

    def _side(self, spec: NoiseSpec) -> int:
        """Side of the square that pictures are brought to, in pixels."""
        return spec.resolution or self.own_side

    @property
    def own_side(self) -> int:
        """Side of the pictures that the pipeline draws by itself."""
        denoiser = getattr(self.pipeline, self.kind.part)
        latent = int(getattr(denoiser.config, "sample_size", None) or self.pipeline.default_sample_size)
        side: int = latent * self.reading.factor
        return side

    def _view(
        self, shown: Shown, spec: NoiseSpec, at: tuple[float, float] = (0.5, 0.5), mirrored: bool = False
    ) -> View:
        step = self.reading.factor * self.kind.step(getattr(self.pipeline, self.kind.part))
        sizes = bucket_sizes(self._side(spec), step)
        size = nearest(shown.picture.size, sizes if spec.buckets else sizes[:1])
        return view_of(shown.picture, size, at, mirrored)

    def micro_batches(self, features: Sequence[Features], budget: int) -> list[list[int]]:
        """Pictures of one size together, within a budget of places in the latents."""
        groups: dict[Any, list[int]] = {}
        for index, one in enumerate(features):
            groups.setdefault(one.target.view.size, []).append(index)
        parts = []
        for (width, height), members in groups.items():
            shown = features[members[0]].target
            rows = HELD_TIMES if shown.held else 1 + (shown.beside is not None)
            most = max(1, budget // (rows * width * height // self.reading.factor**2))
            parts += [members[start : start + most] for start in range(0, len(members), most)]
        return parts

    def collate(self, features: Sequence[Features], output: OutputSpec) -> Batch:
        """Noisy latents of pictures of one size, what is to be told of them, and what the denoiser is told beside them."""
        rows = [row for one in features for row in self._rows(one, output.noise)]
        clean = torch.stack([row.latents for row in rows])
        noise = torch.stack([row.noise for row in rows])
        places = torch.tensor([row.place for row in rows])
        noisy, targets = self.noising.noisy(clean, noise, places)
        weights = torch.tensor([row.weight for row in rows]) * self.noising.weights(
            places, None if features[0].target.held else output.noise.min_snr
        )
        inputs: dict[str, Any] = {"noisy": noisy, "timesteps": self.noising.timesteps(places)}
        inputs["sizes"] = torch.tensor([self.kind.sizes(row.view) for row in rows])
        captions = [self.written(row.caption) for row in rows]
        if self.learns_text:
            inputs["captions"] = captions
        else:
            told = [self.reading.told(caption) for caption in captions]
            inputs |= {f"told_{name}": torch.stack([one[name] for one in told]) for name in told[0]}
        parts = tuple((sum(row.owner == one.example_id for row in rows),) for one in features)
        tokens = sum(len(one) for one in features)
        return Batch(inputs, targets, weights, torch.empty(0), tokens, tokens, parts)

    def _rows(self, features: Features, spec: NoiseSpec) -> list[Row]:
        """An example's rows: at one timestep, with one of the prior's beside it; held out, at several."""
        shown: Shown = features.target
        assert shown.view is not None, "draw() comes first"
        name = features.example_id
        if shown.held:
            places = [int((number + 0.5) / HELD_TIMES * self.noising.steps) for number in range(HELD_TIMES)]
            return [
                self._row(name, shown.view, shown.caption, (*shown.key, f"{name}@{place}"), place, 1 / HELD_TIMES)
                for place in places
            ]
        key = (*shown.key, name)
        rows = [self._row(name, shown.view, shown.caption, key, self.noising.draw(key, spec.density), 1.0)]
        if shown.beside is not None:
            other = (*shown.key, f"{name} prior")
            place = self.noising.draw(other, spec.density)
            beside = shown.beside
            rows.append(self._row(name, beside.view, beside.prompt, other, place, spec.prior_weight))
        return rows

    def _row(self, owner: str, view: View, caption: str, key: Key, place: int, weight: float) -> Row:
        latents = self.reading.sample(view, chance(key, "latents"))
        noise = torch.randn(latents.shape, generator=chance(key, "noise"))
        return Row(owner, view, caption, latents, noise, place, weight)

    def forward(self, model: torch.nn.Module, batch: Batch) -> Outputs:
        """What the denoiser tells, in the latents' shape; captions are read here where their encoders learn."""
        inputs = batch.inputs
        if "captions" in inputs:
            told = dict(self.kind.read(self.pipeline, inputs["captions"], inputs["noisy"].device))
        else:
            told = {name.removeprefix("told_"): value for name, value in inputs.items() if name.startswith("told_")}
        told["sizes"] = inputs["sizes"]
        return Outputs(self.kind.predict(model, inputs["noisy"], inputs["timesteps"], told))

    def noise_alone(self, count: int, most: int) -> list[tuple[torch.Tensor, float, list[int]]]:
        """Noise (channels, height, width) with a timestep and what is told of sizes, times spread over the schedule.

        Sides are as the pipeline draws them, at most `most` latents.
        """
        side = min(most, self.own_side // self.reading.factor)
        shape = (int(self.pipeline.vae.config.latent_channels), side, side)
        pixels = (side * self.reading.factor,) * 2
        sizes = self.kind.sizes(view_of(Picture("", "", pixels), pixels))
        places = torch.tensor([int((number + 0.5) / count * self.noising.steps) for number in range(count)])
        return [
            (torch.randn(shape, generator=torch.Generator().manual_seed(number)), float(timestep), sizes)
            for number, timestep in enumerate(self.noising.timesteps(places))
        ]

    def words_of(self, folder: Path) -> list[str]:
        """Tokens that an artefact has learned, in order."""
        return sorted({token for _, file in word_files(folder) for token in stored_tokens(file)})

    def written(self, caption: str) -> str:
        """A caption as the text encoders read it, with learned words in their places."""
        return spelled(caption, self.words)

    def inputs_alone(self, features: Features) -> dict[str, list[int]]:
        """A picture is proved by what is told of noisy latents, which are no lists of tokens."""
        raise refuse("no_tokens", "a picture has no tokens")

    def paint(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        device: torch.device,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> list[Any]:
        """A picture for each prompt and seed, as the pipeline draws it; what is left open is its own default."""
        asked = [self.written(prompt) for prompt in prompts]
        return paint(self.pipeline, asked, seeds, device, steps=steps, guidance=guidance)

    def drawn_by(self) -> tuple[int, float]:
        """The pipeline's own number of steps and its guidance."""
        return own_settings(self.source.config["_class_name"])

    # --- artefacts -------------------------------------------------------------------------------------------------

    def save(self, model: Any, folder: Path) -> None:
        """The whole pipeline, as stock diffusers loads it."""
        self.pipeline.save_pretrained(folder)

    def save_adapter(self, adapted: Any, folder: Path) -> None:
        """`pytorch_lora_weights.safetensors`, as `load_lora_weights` takes it."""
        write_lora(adapted, folder)

    def begin_adapter(self, adapted: Any, folder: Path) -> None:
        """Take over what `save_adapter` wrote; raises `ValueError` where it is of another form."""
        read_lora(adapted, folder)

    def save_words(self, folder: Path) -> None:
        """`learned_embeds.safetensors`, as `load_textual_inversion` takes it; one file for each text encoder."""
        (token,) = self.words.values()
        write_words(token, list(self._tables().values()), folder)

    def begin_words(self, folder: Path) -> None:
        """Take over what `save_words` wrote; raises `ValueError` where it is another word's."""
        (token,) = self.words.values()
        read_words(token, self._tables(), folder)

    def _tables(self) -> dict[str, GrownTable]:
        return {part: getattr(self.pipeline, part).get_input_embeddings() for part in self.text_parts}

    def save_tokenizer(self, folder: Path) -> None:
        """It is part of the pipeline."""


class Parts(torch.nn.Module):
    """Parts of a pipeline under its own names; called as its denoiser, whose sample it returns."""

    def __init__(self, parts: Mapping[str, torch.nn.Module], denoiser: str) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self._denoiser = denoiser

    def forward(self, **inputs: Any) -> torch.Tensor:
        """The denoiser's sample."""
        sample: torch.Tensor = getattr(self, self._denoiser)(**inputs, return_dict=False)[0]
        return sample


def _longest_reader(source: Source) -> Any:
    """Of a pipeline's tokenizers, the one that reads the most of a caption."""
    parts = [name for name in source.config if name.startswith("tokenizer") and source.config[name][0]]
    if not parts:
        raise BaseError("this pipeline reads no captions: it has no tokenizer", where=source.name)
    tokenizers = [
        AutoTokenizer.from_pretrained(source.location, subfolder=name, revision=source.options.revision or "main")
        for name in sorted(parts)
    ]
    return max(tokenizers, key=lambda tokenizer: tokenizer.model_max_length)
