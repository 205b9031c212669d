"""What the data teaches: one options model per objective."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tailor.recipe.options import Options


class LanguageOptions(Options):
    """Raw text: every token from those before it; on encoders, masked tokens from those around them."""

    name: Literal["language"] = "language"
    mask: float = Field(0.15, gt=0, lt=1, description="encoders: the share of words that are masked")
    whole_words: bool = Field(True, description="encoders: all pieces of a word are masked together, or each by itself")


class InstructionOptions(Options):
    """Single turn: the answer is learned, given the instruction."""

    name: Literal["instruction"] = "instruction"


class ChatOptions(Options):
    """Multi-turn: assistant turns are learned, with the token that ends them."""

    name: Literal["chat"] = "chat"
    train_on: Literal["all", "last"] = Field("all", description="all assistant turns, or the last one only")


class ClassificationOptions(Options):
    """A label for a text or two: one of n, several of n, or a number."""

    name: Literal["classification"] = "classification"
    problem: Literal["auto", "single_label", "multi_label", "regression"] = Field(
        "auto", description="auto: by the label's type"
    )

    def written(self) -> "ChoiceOptions":
        """The same task with its label written by the base."""
        return ChoiceOptions(problem=self.problem)


class ChoiceOptions(Options):
    """A label, several, or a number, written by the base as its answer: no head is made for it."""

    name: Literal["choice"] = "choice"
    problem: Literal["auto", "single_label", "multi_label", "regression"] = Field(
        "auto", description="auto: by the label's type"
    )

    @property
    def reads(self) -> str:
        """The objective whose rows these are."""
        return "classification"


class MultipleChoiceOptions(Options):
    """One of the options that each row has of its own; they stand below the question, and the answer is a letter."""

    name: Literal["multiple_choice"] = "multiple_choice"


class TaggingOptions(Options):
    """A tag for each word: names, slots, parts of speech."""

    name: Literal["tagging"] = "tagging"


class SpanOptions(Options):
    """The answer to a question is found in its context, or not there."""

    name: Literal["span_qa"] = "span_qa"
    max_answer_tokens: int = Field(30, ge=1, description="the longest span that is given as an answer")
    null_threshold: float = Field(
        0.0, description="by how much no answer must lead the best span (in logits) to be given"
    )


class SimilarityOptions(Options):
    """Texts that mean the same get vectors that point the same way: for search, and for telling how alike texts are."""

    name: Literal["similarity"] = "similarity"
    scale: float = Field(20.0, gt=0, description="what a cosine is multiplied by before the softmax")
    scored: Literal["cosine", "order"] = Field(
        "cosine",
        description="pairs with scores: the cosine is to be the score (Reimers & Gurevych 2019), or only their order counts "
        "(CoSENT, Su 2022), which wants thousands of rows",
    )
    from_labels: bool = Field(
        False,
        description="rows are texts with labels: texts of one label belong together (the first step for few labels)",
    )

    @property
    def reads(self) -> str:
        """The objective whose rows these are."""
        return "classification" if self.from_labels else self.name


class PreferenceOptions(Options):
    """Of two answers, the chosen one is to gain on the rejected one, measured from the base (DPO, Rafailov et al. 2023)."""

    name: Literal["preference"] = "preference"
    beta: float = Field(0.1, gt=0, description="how strongly the model is held to its base: small is loosely")


class SeqToSeqOptions(Options):
    """A source and its target (a summary, a translation): the target is learned, given the source."""

    name: Literal["seq2seq"] = "seq2seq"
    prefix: str = Field("", description="words put before every source, as T5 wants them: `summarize: `")


Prompt = Annotated[str, Field(min_length=1)]


class PriorOptions(Options):
    """Pictures that the base itself draws for a class of things are learned beside one subject's (DreamBooth, Ruiz et
    al. 2022)."""

    prompt: Prompt | Annotated[list[str], Field(min_length=1)] = Field(
        description="words for the class, without the subject's: `a photo of a dog`; or a list of prompts, taken in turn, "
        "an empty one among them to keep what is drawn without words, which guidance leads away from"
    )
    pictures: int = Field(100, ge=1, description="how many the base draws")
    weight: float = Field(1.0, gt=0, description="of their loss, beside that of the subject's pictures")
    steps: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="denoising steps of these pictures; auto: the pipeline's own number"
    )
    guidance: Annotated[float, Field(ge=0)] | Literal["auto"] = Field(
        "auto", description="how strongly they are held to their prompts; auto: the pipeline's own"
    )


class TextToImageOptions(Options):
    """Captions and their pictures, or pictures of one subject: the base learns to draw them."""

    name: Literal["text_to_image"] = "text_to_image"
    caption: str = Field(
        "a photo of {subject}",
        description="the caption of pictures without one; {subject}: data.subject or the folder's name",
    )
    resolution: int | Literal["auto"] = Field(
        "auto", description="side of a square of as many pixels as each picture is brought to; auto: the base's own"
    )
    buckets: bool = Field(True, description="keep each picture's shape as nearly as may be; false: cut squares")
    crop: Literal["center", "random"] = Field(
        "center", description="random: another cut every epoch; nothing is kept then"
    )
    flip: bool = Field(False, description="half of the time mirrored")
    caption_dropout: float = Field(0.0, ge=0, lt=1, description="share of examples shown without their caption")
    text_encoder: bool = Field(False, description="the text encoders learn too")
    min_snr: float | None = Field(
        None, gt=0, description="cap of a timestep's weight by its signal-to-noise ratio (Hang et al. 2023); 5 is usual"
    )
    timesteps: Literal["auto", "uniform", "logit_normal"] = Field(
        "auto", description="auto: uniform, and logit-normal for flow matching"
    )
    prior: PriorOptions | None = Field(None, description="keep what the base knows of the subject's class")
    once: bool | Literal["auto"] = Field(
        "auto", description="encode pictures and captions once and keep the result; auto: wherever that changes nothing"
    )

    @model_validator(mode="after")
    def _encoded_once(self) -> "TextToImageOptions":
        if self.once is True and self.crop == "random":
            raise ValueError(
                "with crop=random every epoch sees another cut, so nothing can be encoded once: leave out once"
            )
        if self.once is True and self.text_encoder:
            raise ValueError("captions cannot be encoded once by a text encoder that learns: leave out once")
        return self


OBJECTIVES: dict[str, type[Options]] = {
    "language": LanguageOptions,
    "instruction": InstructionOptions,
    "chat": ChatOptions,
    "classification": ClassificationOptions,
    "choice": ChoiceOptions,
    "multiple_choice": MultipleChoiceOptions,
    "tagging": TaggingOptions,
    "span_qa": SpanOptions,
    "similarity": SimilarityOptions,
    "preference": PreferenceOptions,
    "seq2seq": SeqToSeqOptions,
    "text_to_image": TextToImageOptions,
}
