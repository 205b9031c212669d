"""`auto` in the recipe's train section, resolved to numbers with their reasons."""

import math
from dataclasses import dataclass

from tailor.engine.loop import Plan
from tailor.engine.order import steps_per_epoch
from tailor.recipe.methods import MethodOptions
from tailor.recipe.train import TrainOptions

REFERENCE_HIDDEN, LAW = 2000, 0.78
SMALL_RUN_STEPS = 200
PICTURE_STEPS = 400
"""What diffusers' guide to DreamBooth advises for a handful of photos."""
LOOKS, MOST_LOOKS = 8, 20
CPU_TOKENS, DEVICE_TOKENS = 4096, 16384


@dataclass(frozen=True)
class Facts:
    """What the resolution depends on: rows to train on, the base's hidden size if it has one, the device, what is taught."""

    examples: int
    hidden: int | None
    device: str
    raw_text: bool
    pictures: bool = False


def resolve(options: TrainOptions, method: MethodOptions, facts: Facts) -> TrainOptions:
    """The same options with every `auto` replaced; resolving the result again changes nothing."""
    per_epoch = steps_per_epoch(facts.examples, options.examples_per_batch)
    values: dict[str, object] = {}
    if options.max_steps is not None:
        values["epochs"] = math.ceil(options.max_steps / per_epoch)
    elif options.epochs == "auto":
        values["epochs"] = _epochs(facts, per_epoch)
    if options.learning_rate == "auto":
        hidden = facts.hidden
        values["learning_rate"] = method.rate_for_pictures if hidden is None else _rate(method.rate_at_2000, hidden)
    if options.tokens_per_micro_batch == "auto":
        values["tokens_per_micro_batch"] = CPU_TOKENS if facts.device == "cpu" else DEVICE_TOKENS
    if options.patience == "auto":
        values["patience"] = 3
    resolved = options.model_copy(update=values)
    if options.checkpoint_every == "auto":
        resolved = resolved.model_copy(update={"checkpoint_every": look_every(resolved, facts.examples)})
    return resolved


def _epochs(facts: Facts, per_epoch: int) -> int:
    """Raw text once; pictures until some hundreds of steps are made, however few there are; rows from 3 to 10 times."""
    if facts.pictures:
        return max(1, math.ceil(PICTURE_STEPS / per_epoch))
    return 1 if facts.raw_text else min(10, max(3, math.ceil(SMALL_RUN_STEPS / per_epoch)))


def _rate(at_2000: float, hidden: int) -> float:
    """Two significant digits of the law: a third would claim a precision that the law has not."""
    return float(f"{at_2000 * (REFERENCE_HIDDEN / hidden) ** LAW:.1e}")


def total_steps(options: TrainOptions, examples: int) -> int:
    """Optimizer steps of the whole run."""
    if options.max_steps is not None:
        return options.max_steps
    assert isinstance(options.epochs, int), "resolve() comes first"
    return options.epochs * steps_per_epoch(examples, options.examples_per_batch)


def look_every(options: TrainOptions, examples: int) -> int:
    """Steps between looks at dev: an epoch, but from eight to twenty looks in all, however long or short epochs are."""
    total = total_steps(options, examples)
    return max(1, min(steps_per_epoch(examples, options.examples_per_batch), total // LOOKS), total // MOST_LOOKS)


def plan_of(options: TrainOptions, examples: int) -> Plan:
    """Resolved options as the loop's numbers."""
    assert isinstance(options.learning_rate, float)
    assert isinstance(options.tokens_per_micro_batch, int)
    assert isinstance(options.checkpoint_every, int)
    assert not isinstance(options.patience, str)
    optimizer, schedule = options.optimizer, options.schedule
    return Plan(
        steps=total_steps(options, examples),
        examples_per_batch=options.examples_per_batch,
        tokens_per_micro_batch=options.tokens_per_micro_batch,
        learning_rate=options.learning_rate,
        schedule=schedule.name,
        warmup=schedule.warmup,
        final=schedule.final,
        weight_decay=optimizer.weight_decay,
        betas=optimizer.betas,
        epsilon=optimizer.epsilon,
        clip=optimizer.clip,
        seed=options.seed,
        look_every=look_every(options, examples),
        checkpoint_every=options.checkpoint_every,
        patience=options.patience,
    )
