"""The contracts through which the axes meet. Nothing here imports torch; tensors appear as type names only.

row --Objective.read--> Example --Base.encode--> Features --Base.collate--> Batch
Batch --Base.forward--> Outputs --Objective.loss--> LossSum(total, weight)
Method.attach(base) --> Attached: parameters(), after_step(), save(), merge()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from tailor.core.examples import Example, Features, Message
from tailor.core.noise import NoiseSpec
from tailor.core.prompts import Prompt

if TYPE_CHECKING:
    import numpy as np
    import torch

Head = Literal["tokens", "labels", "tags", "span", "masked", "embedding", "sequence", "noise"]
"""What an objective reads off a model: logits of the next token, of n labels per example, of n tags per word, of a span's
first and last token, of masked tokens; one vector per text; or what was added to a picture to make it noisy (or
whatever else the base was trained to tell of it). `sequence` is how an encoder-decoder gives `tokens`."""

AnswersKind = Literal[
    "text", "label", "labels", "number", "raw", "masked", "tags", "span", "ranking", "score", "margin", "image"
]
"""What a task's answers are: a text (or tool calls), a label, several labels, a number, raw text that is only read (all of
it, or masked tokens of it), a tag per word, a span, the place of the right text in a ranking, how alike two texts are, by
how much one answer is preferred, a picture."""

Need = Literal["linears", "embeddings", "blocks", "past_kv", "head", "weights", "prompt_text", "new_words"]
"""What a method takes hold of. Needs that are a subset of what the base has is the method x base table.

`new_words`: the table of words can be added to, so that learned embeddings are a word's and stand where it stands."""

UNTRAINED = (0, -1)
"""The key (seed, epoch) of masks and other draws outside training: always the same, so that figures can be compared."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """The output an objective asks a base to build.

    Args:
        head: which kind of head.
        labels: the names of the n outputs for `labels` and `tags`, in order; a single empty name for regression.
        problem: transformers' `problem_type`, which fixes the loss and the activation.
        pooling: the family's stock head, or a linear layer on the mean of the token states (sentence encoders).
        mask, whole_words: for `masked`, the share of words that are hidden, and whether their pieces go together.
        noise: for `noise`, how pictures are shown.
    """

    head: Head
    labels: tuple[str, ...] = ()
    problem: Literal["", "regression", "single_label_classification", "multi_label_classification"] = ""
    pooling: Literal["stock", "mean"] = "stock"
    mask: float = 0.15
    whole_words: bool = True
    noise: NoiseSpec = field(default_factory=NoiseSpec)


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How a base turns examples into features.

    Args:
        max_length: the most tokens of a row; None: the base's context.
        on_overlong: what becomes of a longer row; None: what suits the kind of example.
        packing: whether several sequences may share a row.
        naive: everything is computed by the book: padded rows, logits at every position, PEFT's own layers.
        thinking: what to do with reasoning parts (see the recipe), and whether the data holds any.
        reserved: positions of the context that are not a row's own: those of virtual tokens.
        subject: the word for the one subject of all pictures; None: there is no such word.
    """

    max_length: int | None = None
    on_overlong: Literal["error", "truncate_prompt", "truncate", "drop"] | None = None
    packing: bool = True
    naive: bool = False
    thinking: Literal["auto", "train", "empty", "drop"] = "auto"
    data_has_thinking: bool = False
    reserved: int = 0
    subject: str | None = None


@dataclass(slots=True)
class Batch:
    """One micro-batch, ready for the model.

    Args:
        inputs: keyword arguments of the model's forward.
        targets: what the rows of `Outputs.logits` should be, aligned with them.
        weights: float32 loss weights, one per row of the outputs.
        rows: (2, rows) where in the model's (batch, kept positions) logits each row of the outputs stands; empty where an
            example or text is one row.
        computed_tokens: tokens pushed through the trunk, padding included.
        tokens: real tokens of the examples.
        parts: for each example, how many rows of the outputs each of its sequences has.
        frozen: what was computed once with frozen weights, (examples, k) float32 by name.
        task: which of several tasks all of its examples belong to.
    """

    inputs: dict[str, Any]
    targets: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor
    computed_tokens: int
    tokens: int
    parts: tuple[tuple[int, ...], ...] = ()
    frozen: Mapping[str, torch.Tensor] = field(default_factory=dict)
    task: str = ""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        inputs = {key: value.to(device) if hasattr(value, "to") else value for key, value in self.inputs.items()}
        frozen = {key: value.to(device) for key, value in self.frozen.items()}
        targets, weights, rows = self.targets.to(device), self.weights.to(device), self.rows.to(device)
        return replace(self, inputs=inputs, targets=targets, weights=weights, rows=rows, frozen=frozen)


@dataclass(slots=True)
class Outputs:
    """Logits of shape (rows, classes): rows are the supervised positions, words, texts or examples.

    For spans (rows, 2, positions), of the first and the last token; for embeddings (rows, width), not yet normalised;
    for noise (rows, channels, height, width), each example at one timestep or several.

    Args:
        read: the logits; unread: what they can still be made of, where nobody has needed them yet.
    """

    read: torch.Tensor | None = None
    unread: Unread | None = None

    @property
    def logits(self) -> torch.Tensor:
        """The logits, made now where they were not."""
        if self.read is None:
            assert self.unread is not None, "one of them is given"
            self.read = self.unread.logits()
        return self.read


class Unread(Protocol):
    """Rows that the output layer has not been run on."""

    def logits(self) -> torch.Tensor:
        """(rows, vocabulary)."""
        ...

    def cross_entropy(self, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the rows' losses in nats, without all logits at once; targets and weights (rows,)."""
        ...


@dataclass(slots=True)
class LossSum:
    """A loss as a sum and its weight; the engine divides once per optimizer step, never a mean of means."""

    total: torch.Tensor
    weight: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said about one held-out example, with everything a metric or a reader may want to know.

    Args:
        example_id: the example's id; base and tuned answers are paired by it.
        row: the data row as it was read, for a user's own scorer and for the report.
        prompt: what the model was given, as readable text.
        expected: the reference: a text, a label, a tuple of labels, a number; None for raw text.
        given: the model's answer, of the same kind.
        nll: summed negative log-likelihood of the reference, in nats, where it was computed.
        tokens: how many reference tokens `nll` sums over.
        bytes: UTF-8 bytes of the reference text, for bits per byte.
        thinking: reasoning that was stripped from `given`, if any.
        cut: the answer hit its length limit, or ended inside its reasoning.
        origin: `file:LINE` of the row.
    """

    example_id: str
    row: Mapping[str, Any]
    prompt: str
    expected: Any
    given: Any
    nll: float | None = None
    tokens: int = 0
    bytes: int = 0
    thinking: str = ""
    cut: bool = False
    origin: str = ""

    @property
    def place(self) -> str:
        """Where a person finds the row."""
        return self.origin or f"row {self.example_id}"


class Metric(Protocol):
    """A figure over a set of answers that is a function of *sums over rows*, so that resampling rows is a matrix product.

    `statistics` gives a row's additive vector (accuracy: correct, 1; macro-F1: its cell of the confusion matrix; BLEU:
    n-gram counts; perplexity: nats, tokens). `value` maps summed vectors of shape (..., k) to figures of shape (...).
    `points` is how many points one unit is: 100 for shares, 1 for BLEU and chrF.
    """

    name: str
    better: Literal["higher", "lower"]
    points: float

    def statistics(self, answers: Sequence[Answer]) -> np.ndarray: ...

    def value(self, totals: np.ndarray) -> np.ndarray: ...

    def scores(self, answers: Sequence[Answer]) -> np.ndarray:
        """How good each row is by itself, (n,), larger is better: the figure of its own sums, or what stands for one."""
        ...

    def details(self, answer: Answer) -> str:
        """Why a row scored as it did, in words; empty where there is nothing to add."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """What a model's outputs say about one example.

    Args:
        expected: the reference; None where there is none, or where it is generated and asked for apart.
        given: the model's answer, of the same kind.
        nll: summed negative log-likelihood of the reference, in nats; tokens: over how many; bytes: of the reference.
    """

    expected: Any
    given: Any
    nll: float | None = None
    tokens: int = 0
    bytes: int = 0


class Objective(Protocol):
    """What the data teaches.

    Args:
        generates: answers are written, not read off a row of outputs.
        turns: its examples hold turns of a conversation, so that a model of it can be asked for the next one.
        couples: its loss needs all examples of a batch at once, so that a batch cannot be taken in parts.
        needs_frozen: what is to be computed once with the weights as they were before training.
        fits_head: a head that the base lacks is fitted on the frozen trunk first, since no guess could stand for it.
        choices: the answers there are, where an answer is one of a few; empty where it is any text.
        prompt: what stands before and around its questions.
    """

    name: ClassVar[str]
    example: ClassVar[type[Example]]
    prompt: Prompt | None
    generates: ClassVar[bool]
    turns: ClassVar[bool]
    couples: ClassVar[bool]
    needs_frozen: ClassVar[bool]
    fits_head: ClassVar[bool]
    on_overlong: ClassVar[Literal["error", "truncate"]]

    @property
    def answers(self) -> AnswersKind:
        """The kind of its answers, which decides what can score them."""
        ...

    @property
    def output(self) -> OutputSpec:
        """The output the base must build; known once `prepare` has seen the training rows."""
        ...

    @property
    def choices(self) -> tuple[str, ...]: ...

    def answered(self, text: str, question: Question) -> Any:
        """What a text gives as the answer to a question: itself, or the label(s) or number it names; None for none."""
        ...

    def bare(self, instruction: str) -> Prompt | None:
        """The prompt that a base is asked by where nobody has searched for one; `instruction` is the user's own, if any."""
        ...

    def under(self, prompt: Prompt | None) -> Objective:
        """The same objective, asking by another prompt."""
        ...

    def led(self, example: Any) -> Any:
        """An example as it is trained on: with the instruction before it, without demonstrations."""
        ...

    def meet(self, base: Base) -> None:
        """See the base before anything else, to learn what only it tells (the head that its raw text is learned through)."""
        ...

    def prepare(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """See the training rows once, to learn what only they tell (the label set)."""
        ...

    def read(self, row: Mapping[str, Any], seat: ExampleSeat) -> Example:
        """A canonical row as an example; raises `RowRefused`."""
        ...

    def blank(self, texts: tuple[str, ...], seat: ExampleSeat) -> Example:
        """Texts whose answer is asked for, as an example with any answer; raises where nothing is read off a text."""
        ...

    def target(self, example: Any) -> Any:
        """The number(s) that stand for the example's label; None where the tokens are the target."""
        ...

    def loss(self, outputs: Outputs, batch: Batch) -> LossSum:
        """Sum of the weighted losses and the weight it stands for."""
        ...

    def typed(self, question: Question) -> Question:
        """A question that a user types, as its examples hold theirs: with the prefix that every source has, say."""
        ...

    def posed(self, question: Question) -> list[Question]:
        """A question as it is put to a model: behind the prompt, with ever fewer demonstrations for a short context."""
        ...

    def questions(self, example: Any) -> list[Question]:
        """What to ask a model about an example, with the answers expected: the first that fits its context is asked."""
        ...

    def measure(self, features: Features, logits: torch.Tensor, targets: torch.Tensor) -> Any:
        """What is kept of one feature's rows of outputs, (rows, ...) in fp32, once they are read."""
        ...

    def conclude(self, examples: Sequence[Any], measured: Sequence[Sequence[Any]]) -> list[Said]:
        """Answers from what `measure` kept of the features of each example."""
        ...

    def freeze(
        self, features: Features, logits: torch.Tensor, targets: torch.Tensor
    ) -> Mapping[str, tuple[float, ...]]:
        """What is kept of the outputs of the untrained model, where `needs_frozen` asks for it."""
        ...

    def guess(self, examples: Sequence[Any]) -> tuple[str, Callable[[Any], Any]]:
        """The best answers that take no look at a row, from training examples: their name, and an answer per example."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that waits for its next assistant turn. `expected` is a text, or tool calls as name and arguments.

    `options`: what there is to choose from, where the question has options of its own: the first of the objective's choices
    name them in order. `means`: what the answer expected stands for, where that is not its text: several labels, a number.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    expected: str | tuple[Mapping[str, Any], ...]
    options: tuple[str, ...] = ()
    means: Any = None

    @property
    def reference(self) -> Any:
        """What an answer is held against."""
        return self.expected if self.means is None else self.means


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered to a question.

    Args:
        text: the answer, its reasoning stripped.
        calls: the functions it calls, each with `name` and `arguments`.
        thinking: the reasoning that was stripped.
        cut: it hit its length limit, or ended inside its reasoning.
    """

    text: str
    calls: tuple[Mapping[str, Any], ...] = ()
    thinking: str = ""
    cut: bool = False


class Generator(Protocol):
    """What answers questions: a local base through its template, or a model behind an API.

    One that can tell how likely an answer is is `Telling` besides. Others are asked for the answer itself.
    """

    def reply(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Reply]:
        """The answers, in the order of the questions; the same questions and seed give the same answers."""
        ...

    def request(self, question: Question) -> str:
        """The exact request as one canonical string: what is hashed, proved and compared."""
        ...

    def fits(self, question: Question) -> bool:
        """Whether its context is known to hold the question and the answer that is expected."""
        ...

    def spent(self) -> Mapping[str, float]:
        """What it has cost so far: `calls`, `prompt_tokens`, `completion_tokens`, `cost` (nothing, for a local base)."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A generator that can tell how likely an answer is."""

    def likelihoods(self, questions: Sequence[Question], choices: Sequence[str]) -> np.ndarray:
        """Nats of each choice as the whole answer, (questions, choices)."""
        ...


@dataclass(frozen=True, slots=True)
class ExampleSeat:
    """The id and origin that `Objective.read` puts into the example it makes."""

    id: str
    origin: Any


class Attached(Protocol):
    """A method laid onto a loaded base: the model to run, and what to do with it around a step and at the end.

    `driver` says what is done with it: steps along the gradient, a solver of its one `linear` layer, or a search for the
    `prompt` that it saves.
    """

    model: torch.nn.Module
    driver: Literal["gradient", "solve", "search"]
    linear: torch.nn.Linear | None
    prompt: Prompt | None

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """The parameters that move, by name, in a fixed order."""
        ...

    def rate_shares(self) -> Mapping[str, float]:
        """Parameters that learn at a multiple of the learning rate, by name; all others learn at the rate itself."""
        ...

    def train_mode(self) -> None:
        """Put the parts that learn into training mode, and only those."""
        ...

    def after_step(self, step: int) -> None:
        """Called once the optimizer has stepped, and with the steps taken so far where a run begins or goes on."""
        ...

    def save(self, folder: Path) -> None:
        """Write the artefact; the tokenizer is the base's to write."""
        ...

    def begin_with(self, adapter: Path, *, same_head: bool) -> None:
        """Start from an adapter that was saved, and from its head where that is the same; raises where it does not fit."""
        ...

    def notes(self) -> Mapping[str, Any]:
        """Figures the summary shows, such as `adapted_share`."""
        ...


class Method(Protocol):
    """Which weights move."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]]
    mergeable: ClassVar[bool]

    def __init__(self, options: Any) -> None: ...

    def attach(self, base: Base, output: OutputSpec) -> Attached:
        """Lay the method onto a loaded base."""
        ...


class Base(Protocol):
    """What is adapted: a model with its tokenizer and the encoders it registers.

    Args:
        heads: what can be read off it; head: what the loaded model gives; text_head: how it learns raw text.

    A base that writes has besides: `chat` (how turns become tokens: `prompt`, `stop_ids`, `stop_token`, `render`,
    `warnings`), `room(prompt)` (tokens that fit behind a prompt of so many) and `write(prompts, device, **settings)` (new
    token ids of each). One that draws: `paint(prompts, seeds, device, steps, guidance)` (a picture for each). One whose
    frozen parts read the examples before they are learned from: `precompute(stores, output, place, reporter)`. One whose
    adapters have a format of their own: `save_adapter(peft_model, folder)` and `begin_adapter(peft_model, folder)`. One that
    can learn a word (`new_words`): `learn_words`, `begin_words` and `save_words`.
    """

    name: str
    options: EncodeOptions
    family: ClassVar[str]
    has: ClassVar[frozenset[Need]]
    heads: ClassVar[frozenset[Head]]
    pools: ClassVar[bool]
    """Whether the mean of its token states says something about a text."""
    text_head: ClassVar[Head]
    head: Head
    encoders: Mapping[type[Example], Callable[[Any], list[Features]]]
    model: Any
    tokenizer: Any
    source: Any
    context: int
    limit: int

    @property
    def new_head(self) -> bool:
        """Whether the head was made for this task, so that the base alone cannot do it."""
        ...

    def load(self, output: OutputSpec, dtype: torch.dtype) -> None: ...

    def head_parameters(self) -> list[str]: ...

    def pad_rows(self, reason: str) -> None:
        """From here on one sequence per row, by the stock attention: what a method lays on needs rows of their own."""
        ...

    def draw(self, features: Sequence[Features], output: OutputSpec, key: tuple[int, int]) -> list[Features]:
        """The examples as they are seen this time (masked, say): a function of key (seed, epoch) and of each one's id."""
        ...

    def micro_batches(self, features: Sequence[Features], budget: int) -> list[list[int]]: ...

    def collate(self, features: Sequence[Features], output: OutputSpec) -> Batch: ...

    def forward(self, model: torch.nn.Module, batch: Batch) -> Outputs: ...

    def inputs_alone(self, features: Features) -> dict[str, list[int]]:
        """Forward arguments of one example by itself, but for the mask; of several sequences, of the first."""
        ...

    def save(self, model: Any, folder: Path) -> None: ...

    def save_tokenizer(self, folder: Path) -> None: ...
