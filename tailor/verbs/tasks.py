"""Several tasks over one trunk, from recipe to report."""

import gc
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tailor.bases.shared import SharedBase
from tailor.compose import Prepared, choose_place, resolved_recipe
from tailor.compose_tasks import HEADS_FOLDER, Tasks, make_tasks_job, prepare_tasks
from tailor.core.errors import within
from tailor.core.openings import opened
from tailor.core.reporting import Reporter
from tailor.core.runs import SUMMARY, RunFolder, write_text
from tailor.engine.loop import Job, fit
from tailor.engine.order import TaskOrder
from tailor.engine.place import Place, resident_bytes
from tailor.engine.settings import Facts, resolve, total_steps
from tailor.evaluation.card import Artefact, model_card
from tailor.evaluation.proof import Probe, Proof, judge, own_outputs, run_stock
from tailor.evaluation.report import ReportInputs, TaskAnswers, render_report
from tailor.recipe.base import BaseOptions
from tailor.recipe.deciding import check_same, finished
from tailor.recipe.many import TASK_KEYS, TasksRecipe, load_any
from tailor.verbs.check import data_report
from tailor.verbs.fit import (
    OWN_LOADER,
    announce,
    check_lock,
    lock_of,
    outlook,
    proof_features,
    save,
    stock_base,
    training_facts,
)
from tailor.verbs.fit import run as run_alone
from tailor.verbs.measure import Measured, check_metrics, evaluate
from tailor.verbs.settling import settle_rest
from tailor.wire.ledger import one_command

SINGLE = "single"
"""Where the tasks lie that were also trained alone."""


@one_command()
def run(recipe: TasksRecipe, *, resume: bool, reporter: Reporter) -> dict[str, Any]:
    """Carry all tasks through one loop to one report; `fit`'s JSON answer with an entry per task."""
    baseline = resident_bytes()
    folder = RunFolder.create(Path(recipe.output), resume=resume)
    if (done := finished(folder, recipe, reporter)) is not None:
        return done
    with folder.unless_refused():
        return _carried(recipe, folder, baseline, resume, reporter)


def _carried(recipe: TasksRecipe, folder: RunFolder, baseline: int, resume: bool, reporter: Reporter) -> dict[str, Any]:
    tasks, place = settled(recipe)
    for name, prepared in tasks.prepared.items():
        reporter.say(f"task {name}:")
        announce(prepared, place, reporter)
    _lock(folder, tasks, place)
    job = make_tasks_job(tasks, tasks.first.recipe, place, folder.path, reporter)
    outcome = fit(job)
    facts = training_facts(job, outcome, baseline) | {"tasks": accounts(tasks, job, outcome.state.step)}
    proof = save_and_prove(tasks, job, folder)
    del job
    for prepared in tasks.prepared.values():
        prepared.base.model = None
    gc.collect()
    measured = {name: _measure(tasks, name, folder, place, reporter) for name in tasks.prepared}
    evaluation: dict[str, Any] = {
        "tasks": {n: t for n, one in measured.items() for t in one.evaluation["tasks"].values()}
    }
    evaluation["forgetting"] = None
    if recipe.mixing.single:
        evaluation["single"] = _against_single(tasks, folder, place, facts["tasks"], resume, reporter)
    summary = {
        "run": str(folder.path),
        "status": "done",
        "method": tasks.first.recipe.method_options.name,  # type: ignore[attr-defined]
        "objective": "mixture",
        "base": tasks.first.base.name,
        "train": facts,
        "evaluation": evaluation,
        "proof": proof.as_dict(),
    }
    _write(folder, tasks, summary, measured, proof)
    return summary


def dry_run(recipe: TasksRecipe) -> dict[str, Any]:
    """What `run` would do: the resolved recipe, and of every task the data report and its part of the plan."""
    tasks, place = settled(recipe)
    train = tasks.first.recipe.train
    order = TaskOrder(train.seed, tasks.sizes(), tasks.shares(), train.examples_per_batch)
    taken = Counter(order.task(step) for step in range(total_steps(train, sum(tasks.sizes()))))
    outlooks = {name: outlook(one, place, taken[index]) for index, (name, one) in enumerate(tasks.prepared.items())}
    return {"recipe": resolved_tasks(tasks).as_dict(), "tasks": outlooks}


def settled(recipe: TasksRecipe) -> tuple[Tasks, Place]:
    """All tasks, checked as far as they can be without weights, their training settled, and its place."""
    tasks = prepare_tasks(recipe)
    for name, prepared in tasks.prepared.items():
        with within(f"tasks.{name}", TASK_KEYS):
            check_metrics(prepared)
    place = choose_place(tasks.first.recipe, tasks.first.base.source)
    settle(tasks, place)
    return tasks, place


def resolved_tasks(tasks: Tasks) -> TasksRecipe:
    """The recipe with data, objective, evaluation and training of every task as they were settled."""
    parts = {}
    for name, task in tasks.recipe.tasks.items():
        values = tasks.prepared[name].recipe.as_dict()
        own = {key: values[key] for key in (*TASK_KEYS, "evaluate")} | {"primary": values["evaluate"]["primary"]}
        parts[name] = task.model_copy(update=own)
    first = tasks.first.recipe
    method = tasks.recipe.task(next(iter(parts)), Path(tasks.recipe.output)).method.model_dump(mode="json")
    train = first.train.model_dump(mode="json")
    settled = {"base": first.base, "tasks": parts, "method": method, "train": train, "evaluate": {}}
    return tasks.recipe.model_copy(update=settled)


def settle(tasks: Tasks, place: Place) -> None:
    """Every `auto` as a number: the training settings once for all tasks, by the rows of all of them."""
    first = tasks.first
    facts = Facts(
        examples=sum(tasks.sizes()),
        hidden=first.base.source.hidden,
        device=place.kind,
        raw_text=False,
    )
    train = resolve(first.recipe.train, first.recipe.method_options, facts)
    for prepared in tasks.prepared.values():
        prepared.recipe = prepared.recipe.model_copy(update={"train": train})
        prepared.recipe = resolved_recipe(prepared, place)
        prepared.recipe = settle_rest(prepared, place)


def _lock(folder: RunFolder, tasks: Tasks, place: Place) -> None:
    digests = {name: dict(one.loaded.report.digests) for name, one in tasks.prepared.items()}
    lock = lock_of(tasks.first, place, digests)
    before = folder.read("lock.json")
    if before is not None:
        check_lock(before, lock, folder)
    now = resolved_tasks(tasks)
    if folder.recipe.exists():
        check_same(load_any(folder.recipe), now, folder.path)
    now.save(folder.recipe)
    folder.write("lock.json", lock)
    folder.write("data_report.json", {name: data_report(one) for name, one in tasks.prepared.items()})


def accounts(tasks: Tasks, job: Job, steps: int) -> dict[str, dict[str, Any]]:
    """What each task had of the run: steps, examples, and its share; counted from the order that was followed."""
    assert isinstance(job.order, TaskOrder)
    found = {}
    for place, (name, share) in enumerate(zip(tasks.prepared, tasks.shares(), strict=True)):
        own = [step for step in range(steps) if job.order.task(step) == place]
        examples = sum(len(job.order(step)[1]) for step in own)
        found[name] = {"steps": len(own), "examples": examples, "share": share}
    return found


def save_and_prove(tasks: Tasks, job: Job, folder: RunFolder) -> Proof:
    """Write trunk and heads; in fresh processes stock libraries reload the trunk, and Tailor every head on it."""
    save(job, folder)
    base: Any = job.base
    parts = (
        {} if job.attached.notes().get("frozen_trunk") else {"trunk": _prove_trunk(tasks, base, folder, job.reporter)}
    )
    for name in tasks.prepared:
        parts[name] = _prove_head(tasks.prepared[name], base, name, folder, job.reporter)
    proof = Proof(
        passed=all(part.passed for part in parts.values()),
        by="stock (the trunk), tailor (the heads)",
        rows=sum(part.rows for part in parts.values()),
        max_difference=max(part.max_difference or 0.0 for part in parts.values()),
        base_difference=min(part.base_difference or 0.0 for part in parts.values()),
        problems=[f"{name}: {problem}" for name, part in parts.items() for problem in part.problems],
    )
    folder.write("proof.json", proof.as_dict())
    return proof


def _prove_head(prepared: Prepared, base: SharedBase, name: str, folder: RunFolder, reporter: Reporter) -> Proof:
    output = base.outputs[name]
    rows = [prepared.base.inputs_alone(row) for row in proof_features(prepared)]
    probe = Probe(
        artefact=str(head_folder(folder.path, name)),
        base=stock_base(prepared, folder),
        head=output.head,
        rows=rows,
        problem=output.problem or None,
        trust_remote_code=prepared.recipe.base.trust_remote_code,
        revision=prepared.recipe.base.revision or "main",
        own_loader=OWN_LOADER,
    )
    reporter.say(f"Tailor reloads the head of {name} on what was saved, in a fresh process")
    return judge(run_stock(probe), own_outputs(base.model.of(name), rows))


def _prove_trunk(tasks: Tasks, base: SharedBase, folder: RunFolder, reporter: Reporter) -> Proof:
    trunk: Any = base.trunk
    rows = [one.base.inputs_alone(row) for one in tasks.prepared.values() for row in proof_features(one)[:4]]
    probe = Probe(
        artefact=str(folder.model),
        base=stock_base(tasks.first, folder),
        head="embedding",
        rows=rows,
        trust_remote_code=tasks.recipe.base.trust_remote_code,
        revision=tasks.recipe.base.revision or "main",
    )
    reporter.say("stock libraries reload the shared trunk, in a fresh process")
    return judge(run_stock(probe), own_outputs(trunk.model, rows))


def head_folder(folder: Path, task: str) -> Path:
    """One task of a run, which is a base by itself."""
    return folder / "model" / HEADS_FOLDER / task


def _measure(tasks: Tasks, name: str, folder: RunFolder, place: Place, reporter: Reporter) -> Measured:
    reporter.say(f"task {name}:")
    tuned = _named(tasks, head_folder(folder.path, name))
    return evaluate(
        tasks.prepared[name], tuned, tasks.recipe.base, place, partial(opened, run=f"{folder.path}/{name}"), reporter
    )


def _named(tasks: Tasks, path: Path) -> BaseOptions:
    """A model that came of this recipe, loaded as its base is."""
    return tasks.recipe.base.model_copy(update={"name": str(path), "revision": None, "chat_template": None})


def _against_single(
    tasks: Tasks, folder: RunFolder, place: Place, shares: Mapping[str, Any], resume: bool, reporter: Reporter
) -> dict[str, Any]:
    """Each task trained alone for as many steps as it had here, and the shared model against it."""
    found = {}
    for name, prepared in tasks.prepared.items():
        reporter.say(f"task {name} alone, for as many steps")
        path = folder.path / SINGLE / name
        recipe = tasks.recipe.task(name, path)
        train = recipe.train.model_copy(update={"max_steps": max(1, shares[name]["steps"]), "epochs": "auto"})
        run_alone(recipe.model_copy(update={"train": train}), resume=resume and path.exists(), reporter=reporter)
        shared, alone = (_named(tasks, where) for where in (head_folder(folder.path, name), path))
        measured = evaluate(prepared, shared, alone, place, partial(opened, run=f"{folder.path}/{name}"), reporter)
        found[name] = {**next(iter(measured.evaluation["tasks"].values())), "baseline": "alone"}
    return found


def _write(
    folder: RunFolder, tasks: Tasks, summary: dict[str, Any], measured: Mapping[str, Measured], proof: Proof
) -> None:
    folder.write("evaluation.json", summary["evaluation"])
    answers = {n: TaskAnswers(one.base, one.tuned, one.primary) for n, one in measured.items() if one.primary}
    inputs = ReportInputs(
        summary=summary,
        evaluation=summary["evaluation"],
        answers=answers,
        metrics=folder.lines("metrics.jsonl"),
        timing=folder.lines("timing.jsonl"),
        data_report=data_report(tasks.first),
        proof=proof.as_dict(),
        recipe=folder.recipe.read_text(encoding="utf-8"),
        lock=folder.read("lock.json"),
    )
    write_text(folder.path / "report.html", render_report(inputs))
    adapter = (folder.model / "adapter_config.json").exists()
    artefact = Artefact("peft" if adapter else "transformers", "AutoModel")
    card = model_card(summary, artefact, evaluation=summary["evaluation"], proof=proof.as_dict(), lock=inputs.lock)
    write_text(folder.path / "README.md", card)
    folder.write(SUMMARY, summary)
