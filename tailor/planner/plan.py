"""`tailor plan`: which approach, what each method needs here, where else it would fit, how many test rows tell."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tailor.bases.loading import Source, find_trained, source_of
from tailor.compose import Prepared, check_method, choose_place, methods_for, prepare, resolved_recipe, settle_head
from tailor.core import registry
from tailor.core.errors import TailorError
from tailor.engine.place import Place, device_memory
from tailor.engine.settings import plan_of, total_steps
from tailor.planner import power
from tailor.planner.facts import Facts, Goal
from tailor.planner.memory import Need, Step, need_of, trace
from tailor.planner.places import GPU_BASELINE, SLACK, Spot, cards
from tailor.planner.rules import Advice, advise
from tailor.planner.runtime import Amount, Rates, rates_here, run_seconds
from tailor.recipe.base import BaseOptions
from tailor.recipe.methods import METHODS
from tailor.recipe.recipe import Recipe

SMALLEST = 256
"""Tokens of a micro-batch below which no smaller one is tried."""
POINTS = (1, 2, 5, 10)
CAUTION = 0.9
"""The share of the free memory that a smaller micro-batch is meant to fill."""
BASELINE = 700 * 2**20
"""Resident bytes of a process on a CPU that has imported what a run needs."""


@dataclass(frozen=True)
class Wishes:
    """What the user has in mind besides data and base: the device (None: this machine), the aim, how many models are served,
    and whether raw text of the domain is at hand."""

    spot: Spot | None = None
    goal: Goal = "task"
    served: int = 1
    domain: bool = False


@dataclass(frozen=True)
class Sheet:
    """What one method needs on one device; without figures, why there are none.

    `lowered` is the micro-batch in tokens where the usual one does not fit.
    """

    method: str
    recipe: Recipe | None = None
    step: Step | None = None
    need: Need | None = None
    seconds: float | None = None
    fits: bool = False
    why: str = ""
    lowered: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """As in the JSON answer."""
        return {
            "method": self.method,
            "fits": self.fits,
            "memory_bytes": None if self.need is None else self.need.peak,
            "seconds": self.seconds,
            "trainable_parameters": None if self.step is None else round(self.step.moving),
            "why": self.why,
        }


class Planner:
    """A recipe's data and base, and what methods would need with them."""

    def __init__(self, prepared: Prepared, here: Place, wishes: Wishes) -> None:
        self.wishes = wishes
        self.source: Source = prepared.base.source
        self.prepared = prepared
        self.here = here
        self._traces: dict[str, Step] = {}
        self.traced = self.source.family not in ("endpoint", "diffusion")

    @cached_property
    def methods(self) -> list[str]:
        """Those that the base has all for."""
        return methods_for(self.prepared.base)

    @cached_property
    def rates(self) -> Rates | None:
        """This machine's, where it is a CPU; of other devices only the peak is known."""
        return rates_here(self.source.hidden or 0) if self.here.kind == "cpu" and self.traced else None

    def place(self, spot: Spot | None) -> Place:
        """Device and precision of a run on a device."""
        return self.here if spot is None else Place("cuda", spot.precision, f"on {spot.title}")

    def recipe(self, method: str, place: Place, tokens: int | None = None) -> Recipe:
        """The recipe with a method at its own settings, and a micro-batch of so many tokens, resolved."""
        own, given = self.prepared.recipe, METHODS[method]()
        kept = own.method if type(own.method) is type(given) else given
        train = own.train.model_copy(update={"tokens_per_micro_batch": tokens or own.train.tokens_per_micro_batch})
        changed = own.model_copy(update={"method": kept, "train": train})
        check_method(changed, self.prepared.base)
        changed = settle_head(changed, self.prepared.base, self.prepared.objective)
        return resolved_recipe(replace(self.prepared, recipe=changed), place)

    def sheet(self, method: str, spot: Spot | None) -> Sheet:
        """What a method needs on a device: with the usual micro-batch, else with one that fits there."""
        place = self.place(spot)
        try:
            if not self.traced:
                why = "it is asked elsewhere" if self.source.family == "endpoint" else "pipelines are not traced"
                return Sheet(method, recipe=self.recipe(method, place), fits=True, why=why)
            sheet = self._measured(method, spot, place, None)
            smaller = self._smaller(sheet, spot)
            while smaller is not None and smaller < (sheet.lowered or smaller + 1):  # rows that share tokens need less
                sheet = self._measured(method, spot, place, smaller)
                smaller = self._smaller(sheet, spot)
            return sheet
        except TailorError as error:
            return Sheet(method, why=str(error))

    def _room(self, spot: Spot | None) -> float:
        """Bytes that a run may take on a device above an empty process."""
        return spot.room if spot else SLACK * device_memory()[1] - BASELINE

    def _smaller(self, sheet: Sheet, spot: Spot | None) -> int | None:
        """Tokens of a micro-batch that fits; None where this one does, or none can. A row is never divided."""
        need, step = sheet.need, sheet.step
        assert need is not None
        assert step is not None
        free = self._room(spot) - need.fixed
        if sheet.fits or step.rows == 1 or free < need.saving:
            return None
        return max(SMALLEST, int(step.tokens * free / need.batch * CAUTION))

    def _measured(self, method: str, spot: Spot | None, place: Place, tokens: int | None) -> Sheet:
        recipe = self.recipe(method, place, tokens)
        step = self._trace(recipe, place)
        amount = self._amount(recipe)
        need = need_of(step, amount.plan, dev=amount.dev_tokens > 0, kept_apart=place.kind != "cpu")
        fits = need.peak <= self._room(spot)
        seconds = None if METHODS[method].asks else self._seconds(step, amount, spot)
        size = f"{need.peak / 2**30:.2f} GiB above an empty process"
        note = f"micro-batches of {recipe.train.tokens_per_micro_batch} tokens"
        why = f"{size}, {note}" if fits else f"{size} do not fit, with {note}"
        return Sheet(method, recipe, step, need, seconds, fits, why, tokens)

    def _trace(self, recipe: Recipe, place: Place) -> Step:
        """Cards of one kind have one trace. Tensors without data know of no CUDA: what a CPU would keep is the same."""
        precision = "bf16" if place.precision == "fp16" else place.precision
        key = json.dumps([recipe.as_dict()["method"], recipe.train.tokens_per_micro_batch, precision])
        if key not in self._traces:
            self._traces[key] = trace(self.prepared, recipe, replace(place, kind="cpu", precision=precision))
        return self._traces[key]

    def _amount(self, recipe: Recipe) -> Amount:
        train, dev = self.prepared.splits["train"], self.prepared.splits["dev"]
        steps = total_steps(recipe.train, len(train.store))
        tokens = train.tokens * steps * recipe.train.examples_per_batch // len(train.store)
        return Amount(tokens, dev.tokens, plan_of(recipe.train, len(train.store)))

    def _seconds(self, step: Step, amount: Amount, spot: Spot | None) -> float | None:
        if not step.gradient:
            amount = replace(amount, tokens=self.prepared.splits["train"].tokens)  # features, once
        if spot is not None:
            operations = sum(step.work[kind] for kind in step.work if kind not in ("bytes", "calls"))
            return spot.seconds(operations / max(1, step.tokens) * amount.tokens)
        return None if self.rates is None else run_seconds(step, amount, self.rates)

    def facts(self) -> Facts:
        """What the rules go by."""
        prepared, source = self.prepared, self.source
        labels = label_counts(prepared)
        parameters = source.parameters()
        chat = getattr(getattr(prepared.base, "tokenizer", None), "chat_template", None)
        return Facts(
            objective=prepared.objective.name,
            family=source.family,
            rows=len(prepared.loaded.train),
            tokens=prepared.splits["train"].tokens,
            labels=len(labels),
            rarest=min(labels.values(), default=0),
            parameters=parameters,
            instructed=chat is not None or source.family == "endpoint",
            weights=source.family != "endpoint",
            goal=self.wishes.goal,
            served=self.wishes.served,
            domain=self.wishes.domain,
        )


def found(options: BaseOptions) -> Source:
    """The base, of which config and tokenizer are enough: weights are not looked at."""
    folder = Path(options.name).expanduser()
    if (folder / "config.json").exists() and not list(folder.glob("*.safetensors")):
        return source_of(folder.name, str(folder), options)
    return find_trained(options)


def label_counts(prepared: Prepared) -> Counter[str]:
    """Training rows of each label; empty where answers are no labels."""
    if not prepared.objective.output.labels or prepared.objective.output.head != "labels":
        return Counter()
    counts: Counter[str] = Counter()
    for entry in prepared.loaded.train:
        label = entry.row.get("label")
        if isinstance(label, str):
            counts[label] += 1
        elif isinstance(label, list | tuple):
            counts.update(map(str, label))
    return counts


@dataclass(frozen=True)
class Planned:
    """The answer, and what the recipe is written from."""

    values: dict[str, Any]
    advice: Advice
    sheet: Sheet | None


def plan(recipe: Recipe, wishes: Wishes) -> Planned:
    """The answer of `tailor plan`, and what a recipe is written from; raises `TailorError` where data or base are amiss."""
    source = found(recipe.base)
    recipe = _possible(recipe, source)
    planner = Planner(prepare(recipe, source=source), choose_place(recipe, source), wishes)
    names = [name for name in METHODS if name in planner.methods]
    sheets = {name: planner.sheet(name, wishes.spot) for name in names}
    facts = planner.facts()
    possible = {name: sheet.fits for name, sheet in sheets.items() if sheet.recipe is not None}
    advice = advise(facts, possible)
    chosen = sheets.get(advice.method or "")
    values = {
        "recommended": advice.method,
        "reasons": [*_reasons(advice), *_nothing_fits(advice)],
        "stages": [*advice.leads],
        "methods": [sheet.as_dict() for sheet in sheets.values()]
        + [_impossible(name, planner) for name in METHODS if name not in names],
        "where": _where(planner, advice.method),
        "hardware": _hardware(planner),
        "data": _data(planner, facts),
        "test_rows": _power(planner),
    }
    return Planned(values, advice, chosen)


def _possible(recipe: Recipe, source: Source) -> Recipe:
    """The recipe with a method that the family has all for, since data is read and encoded for one."""
    base = registry.load("base", source.family)
    names = methods_for(base)
    if recipe.method_options.name in names:  # type: ignore[attr-defined]
        return recipe
    return recipe.model_copy(update={"method": METHODS[names[0]]()})


def _reasons(advice: Advice) -> list[dict[str, str]]:
    return [
        {
            "rule": rule.name,
            "text": rule.text,
            "source": rule.source,
            "conditions": rule.conditions,
            "uncertainty": rule.unsure,
        }
        for rule in advice.rules
    ]


def _nothing_fits(advice: Advice) -> list[dict[str, str]]:
    if advice.method is not None or any(rule.stops for rule in advice.rules):
        return []
    text = "No method that goes with this base and data fits this device: `where` lists devices that hold one."
    return [{"rule": "memory", "text": text, "source": "traced", "conditions": "", "uncertainty": ""}]


def _impossible(name: str, planner: Planner) -> dict[str, Any]:
    try:
        check_method(planner.prepared.recipe.model_copy(update={"method": METHODS[name]()}), planner.prepared.base)
    except TailorError as error:
        return Sheet(name, why=error.message).as_dict()
    raise AssertionError(f"{name} is possible")


def _where(planner: Planner, method: str | None) -> list[dict[str, Any]]:
    """The recommended method (LoRA, where none fits here) on this machine and on common cards."""
    if not planner.traced:
        return []
    name = method or ("lora" if "lora" in planner.methods else planner.methods[0])
    found = []
    for spot in (None, *cards()):
        sheet = planner.sheet(name, spot)
        device = "this machine" if spot is None else spot.title
        found.append(
            {"device": device, "method": name, "fits": sheet.fits, "seconds": sheet.seconds if sheet.fits else None}
        )
    return found


def _hardware(planner: Planner) -> dict[str, Any]:
    spot = planner.wishes.spot
    kind, memory = device_memory()
    if spot is not None:
        return {"device": spot.title, "memory_bytes": spot.memory, "precision": spot.precision, "source": spot.source}
    return {
        "device": kind,
        "memory_bytes": memory,
        "baseline_bytes": BASELINE if kind == "cpu" else GPU_BASELINE,
        "precision": planner.here.precision,
        "threads": torch.get_num_threads(),
    }


def _data(planner: Planner, facts: Facts) -> dict[str, Any]:
    loaded, train = planner.prepared.loaded, planner.prepared.splits["train"]
    return {
        "form": loaded.form.name,
        "objective": facts.objective,
        "rows": {name: len(getattr(loaded, name)) for name in ("train", "dev", "test")},
        "tokens": facts.tokens,
        "longest": train.store.longest(),
        "labels": facts.labels,
        "rarest_label_rows": facts.rarest,
    }


def _power(planner: Planner) -> dict[str, Any]:
    rows = len(planner.prepared.loaded.test)
    size = power.detectable(rows) if rows else None
    return {
        "rows": rows,
        "detectable_points": None if size is None else round(100 * size),
        "rows_for_points": {str(points): power.rows_needed(points / 100) for points in POINTS},
        "assumed_share_that_differs": power.DIFFERING,
    }


def figures(prepared: Prepared, place: Place) -> Mapping[str, Any]:
    """Memory and time of a settled recipe on this machine, for its own dry run."""
    sheet = Planner(prepared, place, Wishes()).sheet(prepared.recipe.method_options.name, None)  # type: ignore[attr-defined]
    return {"memory_bytes": None if sheet.need is None else sheet.need.peak, "seconds": sheet.seconds}
