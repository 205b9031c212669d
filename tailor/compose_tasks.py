"""Several tasks over one trunk: a recipe of tasks -> one job for the loop."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tailor.bases.loading import HEAD_DESCRIPTION, LABELS_FILE, find
from tailor.bases.shared import SharedBase, save_head
from tailor.compose import MERGED, Prepared, load_dtype, output_of, prepare
from tailor.core import registry
from tailor.core.contracts import Attached, EncodeOptions, OutputSpec
from tailor.core.errors import RecipeError, within
from tailor.core.reporting import Reporter
from tailor.data.mixed import MixedStore
from tailor.engine.loop import Job
from tailor.engine.order import TaskOrder, task_shares
from tailor.engine.place import Place, Trackers
from tailor.engine.settings import plan_of
from tailor.methods.attached import PlainAttached
from tailor.objectives.mixture import Mixture
from tailor.recipe.many import TASK_KEYS, TasksRecipe
from tailor.recipe.recipe import Recipe

HEADS_FOLDER = "heads"


@dataclass(frozen=True)
class Tasks:
    """A recipe of tasks with every task's data read and encoded."""

    recipe: TasksRecipe
    prepared: Mapping[str, Prepared]

    @property
    def first(self) -> Prepared:
        """Base, method and training settings are the same for all."""
        return next(iter(self.prepared.values()))

    def sizes(self) -> list[int]:
        """Training examples of each task."""
        return [len(one.splits["train"].store) for one in self.prepared.values()]

    def shares(self) -> list[float]:
        """Each task's share of the steps."""
        mixing = self.recipe.mixing
        weights = [task.weight for task in self.recipe.tasks.values()]
        return task_shares(self.sizes(), weights, mixing.temperature, mixing.cap)


def prepare_tasks(recipe: TasksRecipe) -> Tasks:
    """Every task's data; raises where a task cannot stand on a shared trunk."""
    if recipe.base.continue_adapter:
        raise RecipeError(
            "an adapter goes on being trained for one task: several share a trunk that it is merged into",
            where="base.continue_adapter",
            fix="leave it out",
        )
    prepared = {}
    for name in recipe.tasks:
        with within(f"tasks.{name}", TASK_KEYS):
            one = prepare(recipe.task(name, Path(recipe.output)))
        if one.objective.output.head == "tokens":
            raise RecipeError(
                f"{one.objective.name} is learned through the base's own output layer, which has no second head beside it",
                where=f"tasks.{name}.objective",
                fix="put the rows of all such tasks into one list: data: [first.jsonl, second.jsonl]",
                code="no_such_pair",
            )
        if "embedding" not in one.base.heads:
            raise RecipeError(
                f"a base of family {one.base.family} gives no trunk that several tasks could share",
                where="base",
                fix="choose an encoder such as pocket:bert",
                code="no_such_pair",
            )
        if getattr(one.recipe.method, "unfreeze", 0) or getattr(one.recipe.method, "solver", "") == "exact":
            raise RecipeError(
                "heads of several tasks are trained side by side on a frozen trunk: none is solved, no block follows",
                where="method",
                fix="leave out solver and unfreeze",
            )
        prepared[name] = one
    return Tasks(recipe, prepared)


def task_output(prepared: Prepared) -> OutputSpec:
    """A task's output on a shared trunk: labels are read off the mean token state, which every trunk has."""
    output = output_of(prepared.recipe, prepared.objective)
    return replace(output, pooling="mean") if output.head == "labels" else output


class AttachedTasks(PlainAttached):
    """A method on the shared trunk, and every task's head trained in full beside it."""

    def __init__(self, base: SharedBase, trunk: Attached | None, tasks: Tasks) -> None:
        super().__init__(base, base.model)  # type: ignore[arg-type]  # its encoders are the tasks' own
        self.shared, self.trunk, self.tasks = base, trunk, tasks
        own = set(base.head_parameters())
        moving = {id(value) for value in trunk.trainable().values()} if trunk else set()
        if moving - {id(value) for value in self.model.parameters()}:
            raise RecipeError(
                "this method lies beside the trunk, not in it, so the tasks' models would not see it",
                where="method",
                fix="choose method: full, lora, ia3 or head",
                code="no_such_pair",
            )
        for name, value in self.model.named_parameters():
            if name in own:
                value.data = value.data.float()
            value.requires_grad_(name in own or id(value) in moving)

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        """Of trunk and heads, each once, in the model's order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def train_mode(self) -> None:
        """Heads learn; the trunk as its method has it, without dropout where it is frozen."""
        self.model.train()
        self.shared.trunk.model.eval()
        if self.trunk:
            self.trunk.train_mode()

    def rate_shares(self) -> Mapping[str, float]:
        """The method's own, by the names that its parameters have here."""
        if self.trunk is None:
            return {}
        own = self.trunk.trainable()
        shares = {id(own[name]): share for name, share in self.trunk.rate_shares().items()}
        return {name: shares[id(value)] for name, value in self.trainable().items() if id(value) in shares}

    def after_step(self, step: int) -> None:
        """The method's own."""
        if self.trunk:
            self.trunk.after_step(step)

    def notes(self) -> Mapping[str, Any]:
        """The method's own."""
        return self.trunk.notes() if self.trunk else {"frozen_trunk": True}

    def save(self, folder: Path) -> None:
        """The trunk (or the adapter) in the folder, every head in `heads/NAME` with what it needs to be a base again."""
        if self.trunk:
            self.trunk.save(folder)
        else:
            self.shared.trunk.save(self.shared.trunk.model, folder)
        trunk = self.shared.trunk.model
        for name, base in self.shared.tasks.items():
            target = folder / HEADS_FOLDER / name
            save_head(base.model, trunk, target)
            output, recipe = self.shared.outputs[name], self.tasks.prepared[name].recipe
            (target / LABELS_FILE).write_text(json.dumps(list(output.labels), ensure_ascii=False), encoding="utf-8")
            description = {"trunk": "../..", "head": output.head, "pooling": output.pooling}
            (target / HEAD_DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
            recipe.save(target / "recipe.yaml")


def make_tasks_job(tasks: Tasks, recipe: Recipe, place: Place, folder: Path, reporter: Reporter) -> Job:
    """One job over all tasks; `recipe` is the first task's, its training settings resolved."""
    first = tasks.first
    method = registry.load("method", recipe.method_options.name)(recipe.method)  # type: ignore[attr-defined]
    source = first.base.source
    trunk = registry.load("base", source.family)(find(recipe.base), EncodeOptions(naive=recipe.train.exact == "naive"))
    outputs = {name: task_output(one) for name, one in tasks.prepared.items()}
    base = SharedBase(trunk, {name: one.base for name, one in tasks.prepared.items()}, outputs)
    torch.manual_seed(recipe.train.seed)
    base.load(load_dtype(recipe, place, source))
    if source.adapters:
        trunk.save(trunk.model, folder / MERGED)
    torch.manual_seed(recipe.train.seed)
    frozen = "head" in method.needs
    for value in trunk.model.parameters():
        value.requires_grad_(False)
    attached = AttachedTasks(base, None if frozen else method.attach(trunk, OutputSpec("embedding")), tasks)
    attached.model.to(place.device)
    sizes, shares = tasks.sizes(), tasks.shares()
    plan = plan_of(recipe.train, sum(sizes))
    trackers = Trackers(recipe.train.trackers, folder, {"method": method.name, "learning_rate": plan.learning_rate})
    return Job(
        base=base,  # type: ignore[arg-type]  # its encoders are the tasks' own
        attached=attached,
        objective=Mixture({name: one.objective for name, one in tasks.prepared.items()}),  # type: ignore[arg-type]
        output=OutputSpec("embedding"),
        train=MixedStore({name: one.splits["train"].store for name, one in tasks.prepared.items()}),
        dev=MixedStore({name: one.splits["dev"].store for name, one in tasks.prepared.items()}),
        plan=plan,
        place=place,
        folder=folder,
        reporter=reporter,
        trackers=trackers,
        order=TaskOrder(plan.seed, sizes, shares, plan.examples_per_batch),
    )
