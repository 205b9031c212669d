"""What the data teaches: one options model per objective."""

from typing import Literal

from pydantic import Field

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
        return ChoiceOptions()


class ChoiceOptions(Options):
    """One label of several, written by the base as its answer: no head is made for it."""

    name: Literal["choice"] = "choice"

    @property
    def reads(self) -> str:
        """The objective whose rows these are."""
        return "classification"


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


OBJECTIVES: dict[str, type[Options]] = {
    "language": LanguageOptions,
    "instruction": InstructionOptions,
    "chat": ChatOptions,
    "classification": ClassificationOptions,
    "choice": ChoiceOptions,
    "tagging": TaggingOptions,
    "span_qa": SpanOptions,
    "similarity": SimilarityOptions,
    "preference": PreferenceOptions,
    "seq2seq": SeqToSeqOptions,
}
