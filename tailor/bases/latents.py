"""What a pipeline's frozen parts make of pictures and captions: encoded once and kept by content."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tailor.bases.denoisers import Denoiser, Told
from tailor.bases.drawing import AT_ONCE, paint
from tailor.bases.folders import folder_digest
from tailor.bases.loading import Source, local_folder
from tailor.bases.pictures import Picture, View, inspect, pixels_of
from tailor.core.noise import NoiseSpec
from tailor.core.paths import cache_folder
from tailor.core.reporting import Reporter
from tailor.nn.kept import Values, keep, make_room, read

FORM = "1"
"""Of what is kept: another number wherever another code would make something else of the same picture."""
MOST_BYTES = 8 << 30
PRIOR_SEED = 20_000


@dataclass(frozen=True)
class Drawn:
    """A picture that the base drew, and what for."""

    picture: Picture
    prompt: str


class Encoders:
    """A pipeline's autoencoder and text encoders as readers. `factor`: pixels of a picture's side for one of its
    latents'."""

    def __init__(self, pipeline: Any, kind: Denoiser, source: Source, *, once: bool) -> None:
        self.pipeline, self.kind, self.once, self.source = pipeline, kind, once, source
        self.factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
        self.folder = cache_folder() / "pictures"
        self._autoencoder = folder_digest(local_folder(source.location, source.options.revision) / "vae")
        self._whole = source.digest() + str(getattr(pipeline, kind.part).dtype)
        self._told: dict[str, Told] = {}

    @contextlib.contextmanager
    def at(self, device: torch.device) -> Iterator[None]:
        """The readers on a device, and back on the CPU afterwards."""
        parts = [
            part for name, part in self.pipeline.components.items() if name == "vae" or name.startswith("text_enc")
        ]
        found = [part for part in parts if part is not None]
        for part in found:
            part.to(device)
        try:
            yield
        finally:
            for part in found:
                part.to("cpu")

    def latents(self, view: View) -> Values:
        """`mean` and `std` of a view's latents, (channels, height, width) each, in fp32 and scaled as the denoiser
        knows them."""
        return self._once(f"latents {self._autoencoder} {view.key}", lambda: self._encode(view))

    @torch.no_grad()
    def _encode(self, view: View) -> Values:
        vae = self.pipeline.vae
        spread = vae.encode(pixels_of(view)[None].to(vae.device, vae.dtype)).latent_dist
        scale, shift = vae.config.scaling_factor, getattr(vae.config, "shift_factor", None) or 0.0
        mean, std = (spread.mean[0].float() - shift) * scale, spread.std[0].float() * scale
        return {"mean": mean.cpu().contiguous(), "std": std.cpu().contiguous()}

    def sample(self, view: View, chance: torch.Generator) -> torch.Tensor:
        """Latents of a view, drawn as the autoencoder spreads them."""
        known = self.latents(view)
        return known["mean"] + known["std"] * torch.randn(known["mean"].shape, generator=chance)

    def told(self, caption: str) -> Told:
        """What a denoiser is told of a caption, without the rows' dimension."""
        if caption not in self._told:
            self._told[caption] = self._once(f"told {self._whole} {caption}", lambda: self._read(caption))
        return self._told[caption]

    @torch.no_grad()
    def _read(self, caption: str) -> Values:
        encoder = next(part for name, part in self.pipeline.components.items() if name.startswith("text_enc") and part)
        found = self.kind.read(self.pipeline, [caption], encoder.device)
        return {name: value[0].detach().cpu().contiguous() for name, value in found.items()}

    def _once(self, content: str, compute: Any) -> Values:
        if not self.once:
            return compute()  # type: ignore[no-any-return]
        path = self.folder / f"{hashlib.sha256(f'{FORM} {content}'.encode()).hexdigest()}.safetensors"
        values = read(path)
        if values is None:
            values = compute()
            keep(path, values)
        return values

    def make_room(self) -> None:
        """Keep what is kept within bounds."""
        if self.folder.is_dir():
            make_room(self.folder, MOST_BYTES)

    def prior(self, spec: NoiseSpec, side: int, place: Any, reporter: Reporter) -> list[Drawn]:
        """Pictures that the base itself draws for the prior's prompts in turn, kept by all that they depend on.

        They are drawn in the same company always, beside which a picture's last bits are the same.
        """
        how: dict[str, Any] = {"steps": spec.prior_steps, "guidance": spec.prior_guidance, "side": side}
        content = f"{FORM} {self._whole} {spec.prior} {how}"
        folder = cache_folder() / "prior" / hashlib.sha256(content.encode()).hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
        prompts = [spec.prior[number % len(spec.prior)] for number in range(spec.prior_pictures)]
        files = [folder / f"{number:04}.png" for number in range(spec.prior_pictures)]
        lacking = [n for n in range(0, len(files), AT_ONCE) if not all(f.exists() for f in files[n : n + AT_ONCE])]
        if lacking:
            others = f" and {len(spec.prior) - 1} more prompts" if len(spec.prior) > 1 else ""
            reporter.say(f"the base draws pictures of {spec.prior[0]!r}{others}, so that it does not forget them")
        with reporter.progress("drawing", len(lacking)) as progress:
            for first in lacking:
                numbers = range(first, first + AT_ONCE)
                asked = [spec.prior[number % len(spec.prior)] for number in numbers]
                seeds = [PRIOR_SEED + number for number in numbers]
                for number, picture in zip(
                    numbers, paint(self.pipeline, asked, seeds, place.device, **how), strict=True
                ):
                    _write(picture, folder / f"{number:04}.png")
                progress.advance(f"{min(first + AT_ONCE, len(files))} of {len(files)} pictures")
        return [Drawn(inspect(str(file)), prompt) for file, prompt in zip(files, prompts, strict=True)]


def _write(picture: Any, file: Path) -> None:
    """Whole or not at all."""
    part = file.with_suffix(".part")
    picture.save(part, format="PNG")
    part.replace(file)
