"""What a pipeline's frozen parts make of pictures and captions: encoded once and kept by content."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tailor.bases.denoisers import Denoiser, Told
from tailor.bases.drawing import paint
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

    def prior(self, spec: NoiseSpec, side: int, place: Any, reporter: Reporter) -> list[Picture]:
        """Pictures that the base itself draws for the prior's prompt, kept by base, prompt and size."""
        content = f"{FORM} {self._whole} {spec.prior} {side}"
        folder = cache_folder() / "prior" / hashlib.sha256(content.encode()).hexdigest()[:32]
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{number:04}.png" for number in range(spec.prior_pictures)]
        lacking = [file for file in files if not file.exists()]
        if lacking:
            reporter.say(f"the base draws {len(lacking)} pictures of {spec.prior!r}, so that it does not forget them")
        with reporter.progress("drawing", len(lacking)) as progress:
            for file in lacking:
                seed = PRIOR_SEED + int(file.stem)
                (picture,) = paint(self.pipeline, [spec.prior or ""], [seed], place.device, side=side)
                _write(picture, file)
                progress.advance(file.name)
        return [inspect(str(file)) for file in files]


def _write(picture: Any, file: Path) -> None:
    """Whole or not at all."""
    part = file.with_suffix(".part")
    picture.save(part, format="PNG")
    part.replace(file)
