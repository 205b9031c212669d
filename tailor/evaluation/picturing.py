"""Pictures as answers: drawn for the captions of held-out rows, from seeds that are the same for every model."""

import base64
import hashlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tailor.core.contracts import Answer
from tailor.core.reporting import Reporter

SHOWN = 8
"""Pictures that a report shows where no metric asks for more."""
AT_ONCE = 4
LARGEST = 256
"""Side in pixels of a picture in a report."""


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn; None: the pipeline's own number of steps and guidance."""

    device: Any
    steps: int | None = None
    guidance: float | None = None


def seed_of(example_id: str) -> int:
    """The seed from which an example's picture is drawn, whoever draws it."""
    return int.from_bytes(hashlib.sha256(example_id.encode()).digest()[:4]) >> 1


def with_pictures(
    base: Any, answers: Sequence[Answer], count: int, drawing: Drawing, reporter: Reporter
) -> list[Answer]:
    """Answers with a picture each, but for those beyond the first `count`."""
    asked = answers[:count]
    drawn: list[Answer] = []
    with reporter.progress("drawing", len(asked)) as progress:
        for start in range(0, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            prompts, seeds = [one.prompt for one in some], [seed_of(one.example_id) for one in some]
            pictures = base.paint(prompts, seeds, drawing.device, drawing.steps, drawing.guidance)
            for answer, picture in zip(some, pictures, strict=True):
                drawn.append(replace(answer, given=picture))
                progress.advance(f"{len(drawn)} of {len(asked)} pictures")
    return [*drawn, *answers[count:]]


def is_picture(value: Any) -> bool:
    """Whether a value is a picture; where there is one, its library has been imported."""
    library = sys.modules.get("PIL.Image")
    return library is not None and isinstance(value, library.Image)


def as_source(picture: Any) -> str:
    """A picture as the source of an HTML image, at most `LARGEST` pixels wide and high."""
    shown = picture.convert("RGB")
    shown.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
