"""What is measured, and on how much."""

from typing import Annotated, Literal

from pydantic import Field

from tailor.recipe.base import BaseOptions
from tailor.recipe.options import Options

Auto = Literal["auto"]
Count = Annotated[int, Field(ge=1)]


class JudgeOptions(Options):
    """A model that says which of two answers is better; every pair is asked twice, its sides swapped."""

    base: BaseOptions = Field(description="what judges: an endpoint, or any base that writes")
    rubric: str = Field(
        "Prefer the one that is right, that does what was asked for, and says no more than that.",
        min_length=1,
        description="what makes an answer better",
    )
    rows: Count = Field(100, description="test rows that are judged at most")


class EvaluateOptions(Options):
    """Evaluation: base against tuned on the test split."""

    primary: str = Field("auto", description="the metric that decides the verdict")
    metrics: list[str] | Auto = Field(
        "auto", description="built-in names, or your own file.py:function; loss beside them"
    )
    samples: Count | Auto | None = Field(
        "auto",
        description="test rows for which answers are written or drawn; auto: at most 200, of pictures 16; null: all",
    )
    max_new_tokens: Count | Auto | None = Field(
        "auto", description="auto: from the longest reference answer; null: nothing is written"
    )
    forgetting: bool | Auto = Field("auto", description="loss on a fixed general text, before and after")
    old: str | None = Field(
        None, description="captioned pictures of what the base could do before: measured before and after"
    )
    steps: Count | Auto | None = Field(
        "auto",
        description="denoising steps of a drawn picture; auto: the pipeline's own number; null: nothing is drawn",
    )
    guidance: Annotated[float, Field(ge=0)] | Auto | None = Field(
        "auto",
        description="how strongly a drawn picture is held to its prompt; auto: the pipeline's own; null: as steps",
    )
    judge: JudgeOptions | None = Field(None, description="a model that compares base and tuned answers, blind")
    margin: float | None = Field(None, gt=0, description="points within which tuned counts as not worse")

    @property
    def drawing(self) -> tuple[int | None, float | None]:
        """Steps and guidance as a pipeline takes them; None: its own."""
        return (None if self.steps == "auto" else self.steps), (None if self.guidance == "auto" else self.guidance)
