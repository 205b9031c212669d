"""The bytes and the work of one step, traced and not guessed: the real model, method and loss, from the config alone.

Layers that are alike need alike: the step is traced at two small depths, and every figure continued along its line. The
peak is taken apart by windows (forward, loss, both halves of backward, its end), in each of which it is a line in the depth.
"""

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from tailor.bases.loading import Source
from tailor.compose import Prepared, load_dtype, output_of
from tailor.core import registry
from tailor.core.contracts import Attached, OutputSpec
from tailor.core.errors import BaseError
from tailor.core.examples import Features
from tailor.engine.loop import Plan
from tailor.engine.order import plain_order
from tailor.engine.place import Place
from tailor.engine.settings import plan_of
from tailor.planner.ledger import Ledger, as_ghost, ghosts
from tailor.recipe.recipe import Recipe

DEPTHS = ("num_hidden_layers", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
"""How configs call the number of their layers."""
FEWEST = 2
"""Layers of the smaller trace: in a model of one, embeddings and head hide what a layer takes."""
MOMENTS, COPY = 8, 4
"""Bytes of AdamW's two moments, and of one more copy of a weight, for each weight that moves."""
LAST = 8
"""Operations at the end of backward, where all gradients are there and that of the embeddings comes in."""
LOOKED_AT = 100
"""Steps of the first epoch among which the largest micro-batch is looked for."""


@dataclass(frozen=True)
class Step:
    """What a micro-batch needs.

    Args:
        weights: bytes of parameters and buffers; moving: how many parameters move, of how many in all.
        peaks: bytes above the weights at the peak of each window; gradients are among them.
        work: see `Ledger`, of one micro-batch; forward: the part of it up to the loss.
        tokens: of the micro-batch; rows: its examples.
        gradient: whether it learns along one (a head that is solved does not).
    """

    weights: float
    moving: float
    total: float
    peaks: tuple[float, ...]
    work: Mapping[str, float]
    forward: Mapping[str, float]
    tokens: int
    rows: int
    gradient: bool

    def continued(self, other: "Step", share: float) -> "Step":
        """Along the line from this step through another one, `share` times as far."""

        def line(here: float, there: float) -> float:
            return here + (there - here) * share

        return Step(
            line(self.weights, other.weights),
            line(self.moving, other.moving),
            line(self.total, other.total),
            tuple(line(*pair) for pair in zip(self.peaks, other.peaks, strict=True)),
            {name: line(value, other.work[name]) for name, value in self.work.items()},
            {name: line(value, other.forward[name]) for name, value in self.forward.items()},
            self.tokens,
            self.rows,
            self.gradient,
        )


@dataclass(frozen=True)
class Need:
    """The memory of a run by what it is for, in bytes.

    Args:
        weights: parameters and buffers; kept: what the optimizer and the best weights so far take besides.
        batch: the most that a micro-batch takes, gradients included; saving: what a checkpoint takes, gradients included.
    """

    weights: int
    batch: int
    kept: int
    saving: int

    @property
    def peak(self) -> int:
        """Bytes above those of a process that has only imported."""
        return self.fixed + max(self.batch, self.saving)

    @property
    def fixed(self) -> int:
        """What no smaller micro-batch spares."""
        return self.weights + self.kept


def need_of(step: Step, plan: Plan, *, dev: bool, kept_apart: bool) -> Need:
    """From a traced micro-batch to a run.

    While it steps, AdamW's moments and the weights that dev liked best are there besides; while it saves, a copy of the
    moments is, and the gradients of the last step still are.

    Args:
        dev: whether dev chooses; kept_apart: the device is not where the best weights and checkpoints are kept.
    """
    if not step.gradient:
        return Need(int(step.weights), int(max(step.peaks)), 0, 0)
    moments = MOMENTS * step.moving
    best = COPY * step.moving if dev and plan.steps > plan.look_every and not kept_apart else 0
    copied = 0 if kept_apart else moments
    return Need(
        weights=int(step.weights),
        batch=int(max(step.peaks)),
        kept=int(moments + best),
        saving=int(COPY * step.moving + copied),
    )


def trace(prepared: Prepared, recipe: Recipe, place: Place) -> Step:
    """One micro-batch of a prepared recipe, the largest of its first epoch, at the base's full depth.

    Raises `TailorError` where base and method do not go together, `BaseError` where the model cannot be run without data.
    """
    source = prepared.base.source
    depth = _depth(source.config)
    first, second = _samples(source.config, depth)
    steps = [_traced(prepared, recipe, place, _at_depth(source, count)) for count in (first, second) if count]
    if len(steps) == 1:
        return steps[0]
    return steps[0].continued(steps[1], (depth - first) / (second - first))


def _depth(config: Any) -> int:
    text = config.get_text_config()
    return int(getattr(text, "num_hidden_layers", 0) or 0)


def _samples(config: Any, depth: int) -> tuple[int, int]:
    """Two depths whose line leads to the real one; (depth, 0) where only the whole model will do."""
    text = config.get_text_config()
    counts = {getattr(text, name) for name in DEPTHS if isinstance(getattr(text, name, None), int)}
    period = _period(text, depth)
    if counts != {depth} or not period:
        return depth, 0
    first = depth % period
    while first < FEWEST:
        first += period
    second = first + period
    return (first, second) if second < depth else (depth, 0)


def _period(config: Any, depth: int) -> int:
    """After how many layers their kinds repeat, by every list of the config that has an entry for each; 0: they do not."""
    lists = [value for value in vars(config).values() if isinstance(value, list | tuple) and len(value) == depth]
    for period in range(1, depth // 2 + 1):
        if all(kinds[place] == kinds[place % period] for kinds in lists for place in range(depth)):
            return period
    return 0


def _at_depth(source: Source, depth: int) -> Source:
    """The same base without weights, and of another depth."""
    config = copy.deepcopy(source.config)
    text = config.get_text_config()
    full = _depth(source.config)
    for name, value in list(vars(text).items()):
        if isinstance(value, list | tuple) and len(value) == full:
            setattr(text, name, value[:depth])
    for name in DEPTHS:
        if isinstance(getattr(text, name, None), int):
            setattr(text, name, depth)
    return replace(source, config=config, weightless=True, adapters=(), head=None, begun=None)


def _traced(prepared: Prepared, recipe: Recipe, place: Place, source: Source) -> Step:
    base = copy.copy(prepared.base)
    base.source, base.model = source, None
    output = output_of(recipe, prepared.objective)
    method = registry.load("method", recipe.method_options.name)(recipe.method)  # type: ignore[attr-defined]
    with Ledger(()):  # which answers, too, what models ask of their masks
        base.load(output, load_dtype(recipe, place, source))
        with torch.device("meta"):
            attached = method.attach(base, output)
    group, several = largest_micro_batch(prepared, recipe, base, output)
    mode = ghosts()
    with mode:
        as_ghost(attached.model, mode, place.kind)
    try:
        return _run(base, attached, prepared.objective, output, group, place, several)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BaseError(f"this model cannot be traced without weights: {first}", where=prepared.base.name) from None


def largest_micro_batch(
    prepared: Prepared, recipe: Recipe, base: Any, output: OutputSpec
) -> tuple[list[Features], bool]:
    """The micro-batch that needs most memory among those of the first steps, and whether a step has several."""
    store, plan = prepared.splits["train"].store, plan_of(recipe.train, len(prepared.splits["train"].store))
    order = plain_order(plan.seed, len(store), plan.examples_per_batch)
    width = base.source.hidden or 1
    outputs = getattr(base.source.config.get_text_config(), "vocab_size", 1) if not output.labels else 1
    padded = base.packing is None or base.packing.mode == "padded"

    def weight(group: Sequence[Features]) -> float:
        lengths = [len(feature) for feature in group]
        cells = len(group) * max(lengths) if padded else sum(lengths)
        return cells * width * 32 + sum(sum(map(bool, feature.weights)) for feature in group) * outputs * 12

    chosen: list[Features] = []
    several = False
    for step in range(min(LOOKED_AT, -(-len(store) // plan.examples_per_batch))):
        epoch, indices = order(step)
        features = base.draw([store[index] for index in indices], output, (plan.seed, epoch))
        whole = [list(range(len(features)))]
        groups = whole if prepared.objective.couples else base.micro_batches(features, plan.tokens_per_micro_batch)
        several = several or len(groups) > 1
        chosen = max(
            [chosen, *([features[index] for index in group] for group in groups)], key=lambda g: weight(g) if g else -1
        )
    return chosen, several


def _run(
    base: Any,
    attached: Attached,
    objective: Any,
    output: OutputSpec,
    group: Sequence[Features],
    place: Place,
    several: bool,
) -> Step:
    """Forward, loss and backward of one micro-batch; gradients of earlier ones are there, where a step has several."""
    held = [*attached.model.parameters(), *attached.model.buffers()]
    moving = list(attached.trainable().values())
    gradient = attached.driver == "gradient"
    batch = base.collate(list(group), output)
    mode = getattr(held[0], "fake_mode", contextlib.nullcontext())  # none, where a test runs the same on a real model
    with mode, Ledger(held) as ledger, torch.set_grad_enabled(gradient):
        if gradient:
            attached.train_mode()
        else:
            attached.model.eval()
        if several and gradient:
            for parameter in moving:
                parameter.grad = torch.empty_like(parameter)
        with place.autocast():
            outputs = base.forward(attached.model, batch)
        ends = [len(ledger.series)]
        loss = objective.loss(outputs, batch).total
        ends.append(len(ledger.series))
        forward = dict(ledger.work)
        if gradient:
            del outputs
            loss.backward()
    count, loss_end = len(ledger.series), ends[1]
    edges = [0, *ends, (loss_end + count) // 2, max(loss_end, count - LAST), count]
    windows = [ledger.series[start:end] or [0] for start, end in pairwise(edges)]
    own = {id(value): value for value in held}.values()
    return Step(
        weights=float(sum(value.nbytes for value in own)),
        moving=float(sum(value.numel() for value in moving)),
        total=float(sum(value.numel() for value in own if isinstance(value, torch.nn.Parameter))),
        peaks=tuple(float(max(window)) for window in windows),
        work=dict(ledger.work),
        forward=forward,
        tokens=batch.tokens,
        rows=len(group),
        gradient=gradient,
    )
