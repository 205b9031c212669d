"""The only file that sees all three axes: recipe -> job, or the reason why not."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tailor.bases.loading import LABELS_FILE, Remote, Source, find, find_trained
from tailor.bases.weights import brought_along
from tailor.core import registry
from tailor.core.contracts import EncodeOptions, ExampleSeat, OutputSpec
from tailor.core.errors import DataError, RecipeError
from tailor.core.examples import Captioned, Conversation, Example, Labelled, Pair, Preference, Span, Text
from tailor.core.prompts import Prompt
from tailor.core.reporting import Reporter
from tailor.data.load import Loaded, load, peek
from tailor.data.table import Table
from tailor.engine.encoded import encode_once
from tailor.engine.encoding import Encoded, check_refused, replay, replay_rows
from tailor.engine.first_head import FITTED, FirstHead
from tailor.engine.frozen import Frozen
from tailor.engine.guard import memory_explained
from tailor.engine.loop import Job, SearchSpace
from tailor.engine.order import plain_order
from tailor.engine.place import (
    COMPUTE,
    Place,
    Trackers,
    available_devices,
    choose_precision,
    settle_memory,
    settle_threads,
)
from tailor.engine.settings import CPU_TOKENS, Facts, plan_of, resolve
from tailor.engine.space import search_space
from tailor.recipe.base import BaseOptions
from tailor.recipe.objectives import OBJECTIVES
from tailor.recipe.options import Options
from tailor.recipe.recipe import Recipe

FEWEST_TOKENS = 8
"""A row that may have fewer is no text."""
SPLITS = ("train", "dev", "test")
MERGED = "base"
"""Where a run that starts from an adapter keeps its merged base: stock libraries need it to load what comes of it."""
OTHER_WAYS = {
    Labelled: "for labels --base pocket:bert or another encoder; to have the answer written, objective=instruction",
    Conversation: "choose a causal base such as pocket:gpt",
    Text: "choose a causal base such as pocket:gpt, or an encoder such as pocket:bert",
    Span: "choose an encoder such as pocket:bert, or objective=instruction to have the answer written",
    Pair: "choose an encoder such as pocket:bert",
    Captioned: "choose a pipeline such as pocket:diffusion",
    Preference: "choose a causal base such as pocket:gpt",
}
"""What a person can do about data that a base cannot take, by the kind of example."""
STOCK, POOLED = "stock", "mean_pool"
NEEDS = {
    "linears": "linear layers",
    "past_kv": "keys and values of earlier tokens",
    "embeddings": "place in front of every text",
}
"""What methods take hold of, where the word for it says too little."""
FAMILIES = {"endpoint": "a model behind an API does not have"}
"""How a family lacks something, where its name says too little."""
CHARACTERS_PER_TOKEN = 2
"""Fewer than tokenizers need of any script with an alphabet, so that a reference is never cut short."""


@dataclass
class Prepared:
    """A recipe with its data read and encoded; no weights are loaded yet."""

    recipe: Recipe
    base: Any
    objective: Any
    loaded: Loaded
    splits: dict[str, Encoded]

    def held(self, split: str, most: int | None = None) -> Iterator[tuple[Example, Mapping[str, Any]]]:
        """Examples of a split with their rows as read; with `most`, that many, chosen by id."""
        table = self.table(split)
        usable = sorted(set(self.splits[split].rows))
        chosen = sorted(usable, key=lambda index: table[index].id)[:most]
        for index in sorted(chosen):
            entry = table[index]
            yield self.objective.read(entry.row, ExampleSeat(entry.id, entry.origin)), entry.values

    def table(self, split: str) -> Table:
        """The rows of a split."""
        return getattr(self.loaded, split)  # type: ignore[no-any-return]

    def locate(self, example_id: str) -> str:
        """`file:LINE` of a training example, for messages: a search, made only when something went wrong."""
        key = example_id.partition("/")[0]
        return next((str(entry.origin) for entry in self.loaded.train if entry.id == key), example_id)


class Kept:
    """What runs on the same base and data need alike (rows read, rows encoded), made by the first that asks for it."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def once(self, make: Callable[[], Any], *told: Any) -> Any:
        """What `make` makes; `told` is all that it depends on."""
        key = repr(told)
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def prepare(
    recipe: Recipe, root: Path | None = None, source: Source | None = None, kept: Kept | None = None
) -> Prepared:
    """Read the data, find the base, choose the objective, encode every split; all refusals are listed at once.

    Args:
        source: the base where it has been found already: a plan does with a config and a tokenizer.
        kept: what other runs on the same base and data have made already.
    """
    source, kept = source or find_trained(recipe.base), kept or Kept()
    check_base(source)
    rows = (recipe.base, recipe.data, recipe.objective, recipe.split_seed, source.family)
    loaded = kept.once(lambda: load_data(recipe, source.family, root), *rows)
    objective = make_objective(recipe, loaded, source)
    base = make_base(recipe, source, objective, loaded)
    check_pair(objective, base, source)
    check_method(recipe, base)
    recipe = settle_head(recipe, base, objective)
    objective.prepare(entry.row for entry in loaded.train)
    objective = objective.under(source.prompt if recipe.method_options.asks else prompt_before(source, objective))
    check_new_head(recipe, base, output_of(recipe, objective))
    learned = (*rows, base.options, objective.options, objective.prompt)
    # What is replayed is added to the encoded rows, which therefore are this run's alone.
    own = Kept() if recipe.data.replay is not None else kept
    splits = own.once(lambda: {name: encode_once(getattr(loaded, name), objective, base) for name in SPLITS}, *learned)
    check_refused(recipe, *splits.values())
    if recipe.data.replay is not None:
        general = replay_rows(recipe, objective, root)
        splits["train"].replayed = replay(recipe, objective, base, splits["train"], general.train)
        digests = {**loaded.report.digests, "replay": general.report.digests["train"]}
        loaded = replace(loaded, report=replace(loaded.report, digests=digests))
    if not len(splits["train"].store):
        raise DataError(
            "no row is left to train on", where=str(recipe.data.train), fix="`tailor check` lists the reasons"
        )
    return Prepared(recipe, base, objective, loaded, dict(splits))


def load_data(recipe: Recipe, family: str, root: Path | None = None) -> Loaded:
    """The rows of every split, in the shape that the objective reads: spans as questions and answers for a causal LM."""
    data = recipe.data
    if isinstance(recipe.objective, str):
        hint = peek(data.train, columns=data.columns, root=root).objective_for(family.removesuffix("-lm"))
    else:
        hint = str(getattr(recipe.objective, "reads", getattr(recipe.objective, "name", "")))
    return load(
        data.train,
        dev=data.dev,
        test=data.test,
        columns=data.columns,
        on_bad_row=data.on_bad_row,
        root=root,
        seed=recipe.split_seed,
        objective=hint,
    )


def prompt_before(source: Source, objective: Any) -> Prompt | None:
    """What a model is trained behind: the instruction that was searched for its base, else the task in plain words.

    Demonstrations are left out: in training the rows themselves show what they would.
    """
    return source.prompt.instruction_only() if source.prompt is not None else objective.bare("")  # type: ignore[no-any-return]


def make_objective(recipe: Recipe, loaded: Loaded, source: Source) -> Any:
    """The objective the recipe names, or the one that the data's form stands for on this family.

    Where the method asks in words, or a prompt lies before the base, labels are written and not read off a head.
    """
    options: Options
    if isinstance(recipe.objective, str):
        name = loaded.form.objective_for(source.family.removesuffix("-lm"))
        if name not in OBJECTIVES:
            raise RecipeError(
                f"{loaded.form.name} data on a base of family {source.family} stands for the objective {name!r}, "
                "which is not available",
                where="objective",
                fix=f"one of: {', '.join(OBJECTIVES)}",
            )
        options = OBJECTIVES[name]()
    else:
        options = recipe.objective
    if recipe.method_options.asks or source.prompt is not None:
        options = getattr(options, "written", lambda: options)()
    return registry.load("objective", options.name)(options)  # type: ignore[attr-defined]


def make_base(recipe: Recipe, source: Source, objective: Any, loaded: Loaded) -> Any:
    """The base's implementation by its family, with the way it is to encode."""
    data = recipe.data
    options = EncodeOptions(
        max_length=None if data.max_length == "auto" else data.max_length,
        on_overlong=objective.on_overlong if data.on_overlong == "auto" else data.on_overlong,
        thinking=data.thinking,
        data_has_thinking=_has_thinking(loaded),
        reserved=getattr(recipe.method, "tokens", 0),
        subject=data.subject,
        naive=recipe.train.exact == "naive",
    )
    if source.family not in registry.names("base"):
        raise RecipeError(
            f"bases of family {source.family} are not available", where="base", fix="`tailor bases` lists bases"
        )
    base = registry.load("base", source.family)(source, options)
    objective.meet(base)
    if base.context < FEWEST_TOKENS:
        raise RecipeError(
            f"{options.reserved} virtual tokens leave no room in a context of {base.context + options.reserved}",
            where="method.tokens",
            fix="name fewer",
        )
    if base.limit > base.context:
        raise RecipeError(
            f"{base.limit} tokens are more than this base's context of {base.context}", where="data.max_length"
        )
    return base


def check_base(source: Source) -> None:
    """A base can be trained where all of it is weights: virtual tokens and layers beside it cannot be merged."""
    if source.kept:
        raise RecipeError(
            f"{source.name} is a base with an adapter beside it that cannot be merged into its weights, so nothing can be "
            "trained on top of it",
            where="base",
            fix="name the base that it was made from, or train the first run by lora, ia3 or full",
            code="not_mergeable",
        )


def check_pair(objective: Any, base: Any, source: Source) -> None:
    """Objective x base: the base must register an encoder for the objective's kind of example."""
    if objective.example not in base.encoders:
        raise RecipeError(
            f"a base of family {source.family} does not take {objective.example.__name__.lower()} examples, "
            f"which the objective {objective.name} makes",
            where="objective",
            fix=OTHER_WAYS.get(objective.example, "choose another base"),
            code="no_such_pair",
        )


def check_method(recipe: Recipe, base: Any) -> None:
    """Method x base: what the method takes hold of must be there."""
    method = registry.load("method", recipe.method_options.name)  # type: ignore[attr-defined]
    lacking = sorted(method.needs - base.has)
    if recipe.base.quantize and "weights" in method.needs:
        raise RecipeError(
            f"the method {method.name} moves the base's own weights, and those of a 4-bit base cannot move",
            where="base.quantize",
            fix="choose method: lora, or leave out base.quantize",
            code="no_such_pair",
        )
    if lacking:
        held = " and ".join(NEEDS.get(need, need) for need in lacking)
        lacks = FAMILIES.get(base.family, f"a base of family {base.family} does not have for itself")
        raise RecipeError(
            f"the method {method.name} takes hold of the {held}, which {lacks}",
            where="method",
            fix=f"choose another method: {', '.join(methods_for(base)) or 'there is none for it'}",
            code="no_such_pair",
        )


def check_new_head(recipe: Recipe, base: Any, output: OutputSpec) -> None:
    """A method that trains a new head needs a task that brings one, which what a base writes by itself does not."""
    method = registry.load("method", recipe.method_options.name)  # type: ignore[attr-defined]
    if "head" not in method.needs or output.head != base.text_head:
        return
    others = [name for name in methods_for(base) if "head" not in registry.load("method", name).needs]
    raise RecipeError(
        f"the method {method.name} trains a new head, and this task uses the base's own output layer",
        where="method",
        fix=f"choose another method: {', '.join(others)}",
        code="no_such_pair",
    )


def methods_for(base: Any) -> list[str]:
    """The methods that need nothing which a base lacks."""
    return [name for name in registry.names("method") if registry.load("method", name).needs <= base.has]


def _has_thinking(loaded: Loaded) -> bool:
    if loaded.form.name not in ("chat", "instruction"):
        return False
    turns = (message for entry in loaded.train for message in entry.row.get("messages", [entry.row]))
    return any(turn.get("thinking") for turn in turns)


def settle_head(recipe: Recipe, base: Any, objective: Any) -> Recipe:
    """`method.head: auto` as what suits the base: the mean token state of encoders, for labels; else the stock head."""
    if getattr(recipe.method, "head", "") != "auto":
        return recipe
    pooled = base.pools and objective.example is Labelled
    return recipe.model_copy(update={"method": recipe.method.model_copy(update={"head": POOLED if pooled else STOCK})})


def output_of(recipe: Recipe, objective: Any) -> OutputSpec:
    """The output the objective asks for, with the head the method asks for."""
    output: OutputSpec = objective.output
    pooling = getattr(recipe.method, "head", STOCK)
    if pooling in (STOCK, "auto"):
        return output
    if output.head != "labels":
        raise RecipeError(
            f"a {pooling} head gives labels, and this objective learns {output.head}", where="method.head"
        )
    return OutputSpec(output.head, output.labels, output.problem, "mean")


def choose_place(recipe: Recipe, source: Source) -> Place:
    """The best device at hand, and threads and precision for a base of this size on it."""
    kind, parameters = available_devices()[0], source.parameters()
    if not parameters:
        return Place("cpu", "fp32", "its weights are elsewhere")
    settle_threads(kind, parameters)
    settle_memory(kind)
    return Place(kind, *choose_precision(recipe.train.precision, kind, parameters))


def resolved_recipe(prepared: Prepared, place: Place) -> Recipe:
    """The recipe with every `auto` that was settled replaced by what it was settled to."""
    recipe, base = prepared.recipe, prepared.base
    facts = Facts(
        examples=len(prepared.splits["train"].store),
        hidden=base.source.hidden,
        device=place.kind,
        raw_text=prepared.objective.answers == "raw",  # masks are drawn anew every epoch, so that epochs pay
        pictures=prepared.objective.answers == "image",
    )
    train = resolve(recipe.train, recipe.method_options, facts).model_copy(update={"precision": place.precision})
    longest = max(split.store.longest() for split in prepared.splits.values())
    data = recipe.data.model_copy(
        update={
            "max_length": longest if recipe.data.max_length == "auto" else recipe.data.max_length,
            "on_overlong": base.options.on_overlong or "error",
        }
    )
    options = prepared.objective.options
    evaluate = recipe.evaluate
    if recipe.method_options.asks and evaluate.max_new_tokens == "auto":
        longest = getattr(base, "longest_answer", None) or answer_tokens(prepared)
        evaluate = evaluate.model_copy(update={"max_new_tokens": longest})
    return recipe.model_copy(update={"train": train, "data": data, "objective": options, "evaluate": evaluate})


def answer_tokens(prepared: Prepared) -> int:
    """Tokens that an answer may have, by the longest reference: one number, so that every prompt is scored alike."""
    objective, longest = prepared.objective, 0
    for split in ("train", "dev"):
        for example, _ in prepared.held(split):
            for question in objective.questions(example)[:1]:
                longest = max(longest, len(str(question.expected)))
    return longest // CHARACTERS_PER_TOKEN + 16


def make_job(prepared: Prepared, recipe: Recipe, place: Place, folder: Path, reporter: Reporter) -> Job:
    """Load the base, lay the method on, and put everything the loop needs together."""
    method = registry.load("method", recipe.method_options.name)(recipe.method)  # type: ignore[attr-defined]
    base = prepared.base
    output = output_of(recipe, prepared.objective)
    torch.manual_seed(recipe.train.seed)
    base.load(output, load_dtype(recipe, place, base.source))
    if base.source.adapters:
        base.save(base.model, folder / MERGED)
    freeze_splits(_as_it_begins(prepared, output, place), output, place, SPLITS, reporter)
    if base.new_head and prepared.objective.fits_head and not _head_begun(base):
        _first_head(prepared, output, place, folder, reporter).into_base(recipe.train)
    torch.manual_seed(recipe.train.seed)
    attached = method.attach(base, output)
    if base.source.begun:
        same = labels_beside(base.source.begun) == output.labels
        attached.begin_with(base.source.begun, same_head=same)
    if base.packing is not None and base.packing.mode == "padded":
        reporter.say(f"{base.name} trains unpacked: {base.packing.reason}")
    attached.model.to(place.device)
    plan = plan_of(recipe.train, len(prepared.splits["train"].store))
    trackers = Trackers(recipe.train.trackers, folder, {"method": method.name, "learning_rate": plan.learning_rate})
    return Job(
        base=base,
        attached=attached,
        objective=prepared.objective,
        output=output,
        train=prepared.splits["train"].store,
        dev=prepared.splits["dev"].store,
        plan=plan,
        place=place,
        folder=folder,
        reporter=reporter,
        trackers=trackers,
        order=plain_order(plan.seed, len(prepared.splits["train"].store), plan.examples_per_batch),
        locate=prepared.locate,
        space=_space(prepared, recipe, place, folder) if recipe.method_options.asks else None,
    )


def _space(prepared: Prepared, recipe: Recipe, place: Place, folder: Path) -> SearchSpace:
    examples = {name: list(prepared.held(name)) for name in ("train", "dev")}
    return search_space(recipe, place, folder, prepared.base, _proposer(recipe, place), examples)


def _proposer(recipe: Recipe, place: Place) -> Any:
    """The loaded base that reflects, where the recipe names one."""
    options: BaseOptions | None = getattr(recipe.method, "proposer", None)
    return None if options is None else writer(options, recipe, place, "method.proposer")


def writer(options: BaseOptions, recipe: Recipe, place: Place, key: str) -> Any:
    """A loaded base beside the one that is tuned, which reflects or judges in words; `key` is where the recipe names it."""
    source = find(options)
    if isinstance(source, Remote):
        source = replace(source, key=key)
    base = registry.load("base", source.family)(source, EncodeOptions())
    base.load(OutputSpec("tokens"), load_dtype(recipe, place, source))
    return base


def _as_it_begins(prepared: Prepared, output: OutputSpec, place: Place) -> Prepared:
    """With the model as it is before training: the loaded base, and on it the adapter that goes on being trained."""
    if prepared.base.source.begun is None or not prepared.objective.needs_frozen:
        return prepared
    source = find(prepared.recipe.base)
    base = registry.load("base", source.family)(source, prepared.base.options)
    base.load(output, load_dtype(prepared.recipe, place, source))
    return replace(prepared, base=base)


def _head_begun(base: Any) -> bool:
    """Whether the adapter that goes on being trained brings the head that its base lacks."""
    begun = base.source.begun
    return begun is not None and set(base.head_parameters()) <= set(brought_along(begun))


def labels_beside(adapter: Path) -> tuple[str, ...]:
    """The names of the outputs of the head that was saved with an adapter."""
    file = adapter / LABELS_FILE
    return tuple(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else ()


def _first_head(prepared: Prepared, output: OutputSpec, place: Place, folder: Path, reporter: Reporter) -> FirstHead:
    base, train, dev = prepared.base, prepared.splits["train"].store, prepared.splits["dev"].store
    return FirstHead(base, prepared.objective, output, train, dev, base.source.hidden, place, folder, reporter)


def base_beside(options: BaseOptions, folder: Path) -> BaseOptions:
    """What a run is held against: its base, with the head that was fitted to it where it had none."""
    fitted = folder / FITTED
    if not fitted.is_dir():
        return options
    return options.model_copy(update={"name": str(fitted), "revision": None, "chat_template": None})


def freeze_splits(
    prepared: Prepared, output: OutputSpec, place: Place, splits: Sequence[str], reporter: Reporter
) -> None:
    """Have the loaded base, nothing attached to it yet, compute what can be computed once."""
    rows = [prepared.splits[name].store for name in splits]
    precompute = getattr(prepared.base, "precompute", None)
    if precompute is not None:
        with memory_explained("while pictures were encoded", "objective.resolution", "a smaller objective.resolution"):
            precompute(rows, output, place, reporter)
    if not prepared.objective.needs_frozen:
        return
    base, budget = prepared.base, prepared.recipe.train.tokens_per_micro_batch
    reader = Frozen(base, prepared.objective, output, place, budget if isinstance(budget, int) else CPU_TOKENS)
    reporter.say(f"the base reads {sum(map(len, rows))} examples once, before anything is trained")
    for store in rows:
        reader.fill(store)


def load_dtype(recipe: Recipe, place: Place, source: Source) -> torch.dtype:
    """The dtype weights are loaded in: as asked; else fp32 where they move or the products are fp32; else as saved.

    A weight that has once been rounded to bf16 does not get its bits back by being trained in fp32.
    """
    asked = recipe.base.dtype
    if asked != "auto":
        return COMPUTE[asked]
    moves = "weights" in registry.load("method", recipe.method_options.name).needs  # type: ignore[attr-defined]
    return torch.float32 if moves or place.precision == "fp32" else source.saved_dtype
