"""How alike pictures and words are, by a CLIP or DINO folder that the user has.

Prompt following is the cosine of a drawn picture and its prompt under CLIP (Hessel et al. 2021); subject similarity that
of a drawn picture and the held-out picture of its row, under CLIP or DINO (DreamBooth's own measures, Ruiz et al. 2022).
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from tailor.core.contracts import Answer
from tailor.core.errors import TailorError


class Eye:
    """A model of pictures (and texts, if it has them) from a folder or hub id, in fp32 on the CPU."""

    def __init__(self, name: str) -> None:
        try:
            self.model = AutoModel.from_pretrained(name, dtype=torch.float32).eval()
            self.processor = AutoImageProcessor.from_pretrained(name)
            self.reads = hasattr(self.model, "get_text_features")
            self.tokenizer = AutoTokenizer.from_pretrained(name) if self.reads else None
        except (OSError, ValueError, ImportError) as error:
            first = str(error).strip().splitlines()[0]
            raise TailorError(f"this model of pictures cannot be loaded: {first}", where=name) from None

    @torch.no_grad()
    def picture(self, picture: Any) -> torch.Tensor:
        """(width,) of unit length."""
        pixels = self.processor(picture.convert("RGB"), return_tensors="pt")
        found = self.model.get_image_features(**pixels) if self.reads else self.model(**pixels)
        return _unit(found)

    @torch.no_grad()
    def text(self, text: str) -> torch.Tensor:
        """(width,) of unit length."""
        assert self.tokenizer is not None, "asked of a model that reads"
        limit = self.model.config.text_config.max_position_embeddings
        return _unit(
            self.model.get_text_features(**self.tokenizer(text, return_tensors="pt", truncation=True, max_length=limit))
        )


def _unit(found: Any) -> torch.Tensor:
    """The pooled state, or the first token's where none is pooled, at length 1."""
    if not isinstance(found, torch.Tensor):
        pooled = getattr(found, "pooler_output", None)
        found = pooled if pooled is not None else found.last_hidden_state[:, 0]
    return torch.nn.functional.normalize(found[0].float(), dim=0)


@cache
def _eye(name: str) -> Eye:
    return Eye(name)


def follows_prompt(name: str) -> Callable[[Answer], float]:
    """The cosine of each picture and its prompt; raises where the model reads no text."""
    if not _eye(name).reads:
        raise TailorError(
            "prompt following needs a model that reads text and sees pictures", where=name, fix="name a CLIP folder"
        )
    return lambda answer: (
        0.0 if answer.given is None else float(_eye(name).picture(answer.given) @ _eye(name).text(answer.prompt))
    )


def is_like_subject(name: str) -> Callable[[Answer], float]:
    """The cosine of each picture and the held-out picture of its row."""

    def likeness(answer: Answer) -> float:
        if answer.given is None:
            return 0.0
        with Image.open(Path(str(answer.row["image"]))) as held:
            return float(_eye(name).picture(answer.given) @ _eye(name).picture(held))

    return likeness
