"""The straight line: recipe -> data -> base -> method -> loop -> artefact -> proof -> evaluation -> report."""

import contextlib
import gc
import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from tailor.bases.folders import (
    BASE_FILE,
    LORA_OF_PIPELINE,
    PIPELINE_INDEX,
    WORDS_OF_PIPELINE,
    adapter_settings,
    folder_digest,
)
from tailor.bases.loading import LABELS_FILE
from tailor.compose import MERGED, Kept, Prepared, base_beside, choose_place, make_job, prepare, resolved_recipe
from tailor.core.answers import write_answers
from tailor.core.errors import Interrupted, RunError
from tailor.core.openings import opened
from tailor.core.paths import code_digest
from tailor.core.prompts import PROMPT_FILE, PROMPT_PAGE, read_prompt
from tailor.core.reporting import Reporter
from tailor.core.runs import SUMMARY, RunFolder, write_text
from tailor.engine import prompt_loop, solve
from tailor.engine.loop import Job, Outcome, fit
from tailor.engine.place import Place, resident_bytes
from tailor.engine.settings import total_steps
from tailor.evaluation.card import Artefact, ArtefactKind, model_card
from tailor.evaluation.picture_proof import PictureProbe
from tailor.evaluation.proof import CLASSES, ROWS, Logits, Probe, Proof, judge, own_outputs, run_stock
from tailor.evaluation.report import ReportInputs, TaskAnswers, render_report
from tailor.nn.bottleneck import CONFIG_FILE
from tailor.planner.plan import figures
from tailor.recipe.base import BaseOptions
from tailor.recipe.deciding import check_same, finished
from tailor.recipe.recipe import Recipe, load
from tailor.recipe.train import TrainOptions
from tailor.verbs.at_most import at_most
from tailor.verbs.check import data_report
from tailor.verbs.measure import Measured, Sitting, check_metrics, evaluate, evaluation_calls, sit
from tailor.verbs.own_requests import prove_prompt
from tailor.verbs.pictures import told_rows
from tailor.verbs.settling import settle_rest
from tailor.wire.ledger import one_command

DRIVERS = {"gradient": fit, "solve": solve.fit, "search": prompt_loop.fit}
"""What is done with an attached method -> the loop that does it."""
ARTEFACTS: dict[str, ArtefactKind] = {
    LORA_OF_PIPELINE: "diffusion_lora",
    WORDS_OF_PIPELINE: "textual_inversion",
    PIPELINE_INDEX: "pipeline",
}
"""Files by which an artefact of a pipeline is known."""
OWN_LOADER = "tailor.verbs.own_forward"
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors", "tokenizers", "numpy")


@dataclass
class Shared:
    """What several runs on the same base, data and test rows have in common.

    Args:
        kept: rows and what is encoded of them.
        opening: counts how often the test split has been opened; as many runs as report together open it once.
        sittings: the base's answers, by the objective that asks for them.
        heard: is told of what was measured, before the run counts as finished.
    """

    opening: Callable[[str], int]
    heard: Callable[[RunFolder, Prepared, Measured], None]
    kept: Kept = field(default_factory=Kept)
    sittings: dict[str, Sitting] = field(default_factory=dict)

    def before(self, prepared: Prepared, base: BaseOptions, place: Place, reporter: Reporter) -> Sitting:
        """The base's answers; asked for once where what asks is the same."""
        base_alone = base.model_copy(update={"dtype": "auto"})  # methods that move weights load them in fp32
        key = repr((base_alone, prepared.objective.options, prepared.objective.prompt))
        if key not in self.sittings:
            reporter.say("the base answers the test rows, once for all")
            self.sittings[key] = sit(prepared, base, place, reporter)
        return self.sittings[key]


@one_command()
def run(recipe: Recipe, *, resume: bool, reporter: Reporter, shared: Shared | None = None) -> dict[str, Any]:
    """Carry a recipe through to its report, and return the JSON answer of `fit`.

    A finished run is returned as it stands, but for a search that its budget ended and that now has a larger one; an
    unfinished one goes on from its newest checkpoint that verifies.
    """
    baseline = resident_bytes()
    folder = RunFolder.create(Path(recipe.output), resume=resume)
    if (done := finished(folder, recipe, reporter)) is not None:
        return done
    with folder.unless_refused():
        return _carried(recipe, folder, baseline, reporter, shared)


def _carried(
    recipe: Recipe, folder: RunFolder, baseline: int, reporter: Reporter, shared: Shared | None
) -> dict[str, Any]:
    prepared, place = settled(recipe, shared.kept if shared else None)
    recipe = prepared.recipe
    announce(prepared, place, reporter)
    _lock(folder, prepared, place)
    (folder.path / SUMMARY).unlink(missing_ok=True)
    job = make_job(prepared, recipe, place, folder.path, reporter)
    outcome = drive(prepared, job, folder)
    facts = training_facts(job, outcome, baseline)
    proof = save_and_prove(prepared, job, folder)
    del job
    prepared.base.model = None
    gc.collect()
    tuned = recipe.base.model_copy(update={"name": str(folder.path), "revision": None, "chat_template": None})
    below = base_beside(recipe.base, folder.path)
    before = shared.before(prepared, below, place, reporter) if shared else below
    opening = shared.opening if shared else partial(opened, run=str(folder.path))
    measured = evaluate(prepared, tuned, before, place, opening, reporter)
    if shared:
        shared.heard(folder, prepared, measured)
    summary = _summary(folder, prepared, facts, measured, proof)
    write_results(folder, prepared, summary, measured, proof)
    return summary


def drive(prepared: Prepared, job: Job, folder: RunFolder) -> Outcome:
    """The loop that the method names; where it is interrupted, the best prompt so far can be tried at once.

    Of a budget of the base's own, room is kept for the requests of the evaluation.
    """
    own = getattr(job.base, "generator", None)
    try:
        with contextlib.nullcontext() if own is None else own.keeping(evaluation_calls(prepared)):
            return DRIVERS[job.attached.driver](job)
    except Interrupted:
        if job.attached.prompt is not None:
            save(job, folder)
        raise


def dry_run(recipe: Recipe) -> dict[str, Any]:
    """What `run` would do: the resolved recipe, the data report, and the plan in steps and tokens."""
    prepared, place = settled(recipe)
    found = outlook(prepared, place)
    plan = {**found["plan"], **figures(prepared, place)}
    return {"recipe": prepared.recipe.as_dict(), **found, "plan": plan}


def settled(recipe: Recipe, kept: Kept | None = None) -> tuple[Prepared, Place]:
    """A recipe checked as far as it can be without weights, with no `auto` left, and its place."""
    prepared = prepare(recipe, kept=kept)
    check_metrics(prepared)
    place = choose_place(recipe, prepared.base.source)
    prepared.recipe = resolved_recipe(prepared, place)
    prepared.recipe = settle_rest(prepared, place)
    return prepared, place


def outlook(prepared: Prepared, place: Place, steps: int | None = None) -> dict[str, Any]:
    """The data report, and the plan: how many steps (where not given, those of the recipe) and tokens, and where."""
    train, options = prepared.splits["train"], prepared.recipe.train
    steps = total_steps(options, len(train.store)) if steps is None else steps
    tokens = train.tokens * steps * options.examples_per_batch // len(train.store)
    amount: dict[str, Any] = {"steps": steps, "tokens": tokens}
    if prepared.recipe.method_options.asks:
        amount = {"candidates": prepared.recipe.method.candidates, **at_most(prepared).as_dict()}  # type: ignore[attr-defined]
    plan = {
        **amount,
        "device": place.kind,
        "precision": place.precision,
        "reason": place.reason,
    }
    return {"data_report": data_report(prepared), "plan": plan}


def _length(train: TrainOptions) -> str:
    """How long is trained, by what decides it."""
    return f"{train.epochs} epochs of batches" if train.max_steps is None else f"{train.max_steps} steps"


def announce(prepared: Prepared, place: Place, reporter: Reporter) -> None:
    """Every choice that was made, before the first step."""
    recipe, counts = prepared.recipe, {name: len(getattr(prepared.loaded, name)) for name in ("train", "dev", "test")}
    train = recipe.train
    reporter.say(
        f"base {prepared.base.name} · {prepared.base.family} · {place.kind}, {place.precision}: {place.reason}"
    )
    reporter.say(
        f"objective {prepared.objective.name} ({prepared.loaded.form.name} data) · rows: {counts['train']} train, "
        f"{counts['dev']} dev, {counts['test']} test"
    )
    steps = (
        f"learning rate {train.learning_rate:g} · {_length(train)} of {train.examples_per_batch} examples"
        if isinstance(train.learning_rate, float)
        else f"up to {recipe.method.candidates} prompts in each race on dev"  # type: ignore[attr-defined]
    )
    reporter.say(f"method {recipe.method_options.name} · {steps} · up to {recipe.data.max_length} tokens a row")  # type: ignore[attr-defined]
    if recipe.method_options.asks:
        reporter.say(at_most(prepared).said())
    for problem in data_report(prepared)["problems"]:
        if problem["severity"] == "warning":
            reporter.say(f"warning: {problem['message']}")


def _lock(folder: RunFolder, prepared: Prepared, place: Place) -> None:
    """What the run was made from. On resume, data or base that have changed are refused."""
    recipe = prepared.recipe
    lock = lock_of(prepared, place, dict(prepared.loaded.report.digests))
    before = folder.read("lock.json")
    if before is not None:
        check_lock(before, lock, folder)
        check_same(load(folder.recipe), recipe, folder.path)
    recipe.save(folder.recipe)
    folder.write("lock.json", lock)
    folder.write("data_report.json", data_report(prepared))


def lock_of(prepared: Prepared, place: Place, data: Mapping[str, Any]) -> dict[str, Any]:
    """lock.json: digests of base, data and code; versions, threads, hardware."""
    adapter = prepared.base.source.begun
    begun = {"adapter": folder_digest(adapter)} if adapter else {}
    return {
        "base": {"name": prepared.base.name, "digest": prepared.base.source.digest(), **begun},
        "data": dict(data),
        "code": code_digest(),
        "recipe": {"seed": prepared.recipe.train.seed},
        "threads": torch.get_num_threads(),
        "precision": place.precision,
        "device": place.kind,
        "hardware": {"machine": platform.machine(), "cpus": os.cpu_count(), "system": platform.system()},
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("tailor", *LIBRARIES)},
    }


def check_lock(before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder) -> None:
    """Raise where base or data are no longer what a run was begun with."""
    for key in ("base", "data"):
        if before[key] != now[key]:
            changed = ", ".join(
                part for part in {**before[key], **now[key]} if before[key].get(part) != now[key].get(part)
            )
            raise RunError(
                f"the {key} has changed since {folder.path} was begun: {changed}",
                where=str(folder.path / "lock.json"),
                fix="bring it back as it was, or give another output",
                code="changed",
            )


def training_facts(job: Job, outcome: Outcome, baseline: int) -> dict[str, Any]:
    state = outcome.state
    trainable = sum(value.numel() for value in job.attached.trainable().values())
    total = sum(value.numel() for value in job.attached.model.parameters())
    return {
        "steps": state.step,
        "tokens": state.tokens,
        "supervised_tokens": state.supervised_tokens,
        "work_ratio": state.computed_tokens / max(1, state.tokens),
        "seconds": state.seconds,
        "tokens_per_second": state.tokens / max(1e-9, state.seconds),
        "loss_first": state.loss_first,
        "loss_last": state.loss_last,
        "best_step": state.best_step or state.step,
        "stopped_early": state.stopped,
        "peak_memory_bytes": job.place.peak_memory(),
        "baseline_bytes": baseline,
        "trainable_parameters": trainable,
        "total_parameters": total,
        "adapted_share": None,
        **job.attached.notes(),
        **outcome.figures,
    }


def save_and_prove(prepared: Prepared, job: Job, folder: RunFolder) -> Proof:
    """Write the artefact whole or not at all, and have stock libraries reload it in a fresh process."""
    save(job, folder)
    if job.attached.prompt is not None:
        job.reporter.say("a fresh process renders the saved prompt, held against the requests that were scored")
        proof = prove_prompt(folder)
        folder.write("proof.json", proof.as_dict())
        return proof
    probe, trained = PROBES.get(job.base.head, text_probe)(prepared, job, folder)
    job.reporter.say(
        f"{'Tailor reloads' if probe.own_loader else 'stock libraries reload'} what was saved, in a fresh process"
    )
    proof = judge(run_stock(probe), trained)
    folder.write("proof.json", proof.as_dict())
    return proof


def text_probe(prepared: Prepared, job: Job, folder: RunFolder) -> tuple[Probe, Logits]:
    """Held-out rows of tokens, and the trained model's outputs for them."""
    rows = [job.base.inputs_alone(features) for features in proof_features(prepared)]
    trained = own_outputs(job.attached.model, rows)
    probe = Probe(
        artefact=str(folder.model),
        base=stock_base(prepared, folder),
        head=job.base.head,
        rows=rows,
        labels=len(job.output.labels),
        problem=job.output.problem or None,
        mean_pool=job.output.pooling == "mean",
        trust_remote_code=prepared.recipe.base.trust_remote_code,
        revision=prepared.recipe.base.revision or "main",
        quantize=prepared.recipe.base.quantize,
        own_loader=own_loader(folder.model),
    )
    return probe, trained


def picture_probe(prepared: Prepared, job: Job, folder: RunFolder) -> tuple[PictureProbe, Logits]:
    """Noisy latents of held-out pictures, and what the trained model tells of them."""
    rows, trained = told_rows(job.base, job.attached.model, proof_features(prepared), job.output, ROWS)
    probe = PictureProbe(
        artefact=str(folder.model),
        base=stock_base(prepared, folder),
        rows=rows,
        revision=prepared.recipe.base.revision or "main",
    )
    return probe, trained


PROBES: dict[str, Callable[[Prepared, Job, RunFolder], tuple[Probe | PictureProbe, Logits]]] = {"noise": picture_probe}
"""What is read off a model -> how it is proved; rows of tokens for everything else."""


def save(job: Job, folder: RunFolder) -> None:
    """Write the artefact whole or not at all."""
    part = folder.path / ".model.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir()
        job.attached.save(part)
        job.base.save_tokenizer(part)
        if job.output.labels:
            (part / LABELS_FILE).write_text(json.dumps(list(job.output.labels), ensure_ascii=False), encoding="utf-8")
        if job.attached.prompt is None and job.objective.prompt is not None:
            (part / PROMPT_FILE).write_text(job.objective.prompt.as_json(), encoding="utf-8")
        if adapter_settings(part) or job.attached.prompt is not None:
            (part / BASE_FILE).write_text(json.dumps(job.base.source.identity(), indent=2), encoding="utf-8")
        shutil.rmtree(folder.model, ignore_errors=True)
        part.rename(folder.model)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise RunError(
            f"the model cannot be saved: {error}", where=str(folder.model), fix="make room, then --resume"
        ) from None


def own_loader(model: Path) -> str:
    """The module that loads an artefact in the proof where stock libraries cannot: that of our own adapters."""
    return OWN_LOADER if (model / CONFIG_FILE).exists() else ""


def proof_features(prepared: Prepared) -> list[Any]:
    """Held-out rows where there are any: of test, then dev, then train."""
    found: list[Any] = []
    for name in ("test", "dev", "train"):
        store = prepared.splits[name].store
        found += [store[index] for index in range(min(len(store), ROWS - len(found)))]
    return found


def stock_base(prepared: Prepared, folder: RunFolder) -> str:
    """Where stock libraries find the base: beside the run where a head was fitted to it, or where it was an adapter."""
    source, beside = prepared.base.source, base_beside(prepared.recipe.base, folder.path)
    if beside is not prepared.recipe.base:
        return beside.name
    return str(folder.path / MERGED) if source.adapters else str(source.location)


def _summary(
    folder: RunFolder, prepared: Prepared, facts: Mapping[str, Any], measured: Measured, proof: Proof
) -> dict[str, Any]:
    return {
        "run": str(folder.path),
        "status": "done",
        "method": prepared.recipe.method_options.name,  # type: ignore[attr-defined]
        "objective": prepared.objective.name,
        "base": prepared.base.name,
        "train": dict(facts),
        "evaluation": measured.evaluation,
        "proof": proof.as_dict(),
        **_found(prepared, folder),
    }


def _found(prepared: Prepared, folder: RunFolder) -> dict[str, Any]:
    """The prompt that a search has found, for whoever reads the summary or the report."""
    if not prepared.recipe.method_options.asks:
        return {}
    prompt = read_prompt(folder.model / PROMPT_FILE)
    shown = {"instruction": prompt.lead, "input": prompt.input_format, "demonstrations": prompt.most}
    return {"prompt": {**shown, "page": str(folder.model / PROMPT_PAGE)}}


def write_results(
    folder: RunFolder, prepared: Prepared, summary: dict[str, Any], measured: Measured, proof: Proof
) -> None:
    """evaluation.json, the report, the card, and last the summary, whose presence says that the run is finished."""
    folder.write("evaluation.json", measured.evaluation)
    if prepared.objective.answers != "image":
        write_answers(folder.path, measured.base, measured.tuned)
    answers = {"default": TaskAnswers(measured.base, measured.tuned, measured.primary)} if measured.primary else {}
    inputs = ReportInputs(
        summary=summary,
        evaluation=measured.evaluation,
        answers=answers,
        metrics=folder.lines("metrics.jsonl"),
        timing=folder.lines("timing.jsonl"),
        data_report=data_report(prepared),
        proof=proof.as_dict(),
        recipe=folder.recipe.read_text(encoding="utf-8"),
        prompt=(folder.model / PROMPT_PAGE).read_text(encoding="utf-8") if "prompt" in summary else "",
        lock=folder.read("lock.json"),
    )
    write_text(folder.path / "report.html", render_report(inputs))
    write_text(
        folder.path / "README.md",
        model_card(
            summary,
            _artefact(prepared, folder),
            evaluation=measured.evaluation,
            proof=proof.as_dict(),
            lock=inputs.lock,
        ),
    )
    folder.write(SUMMARY, summary)


def _artefact(prepared: Prepared, folder: RunFolder) -> Artefact:
    for name, kind in ARTEFACTS.items():
        if (folder.model / name).exists():
            return Artefact(kind)
    kind = "peft" if (folder.model / "adapter_config.json").exists() else "transformers"
    kind = "adapter" if own_loader(folder.model) else kind
    kind = "prompt" if prepared.recipe.method_options.asks else kind
    return Artefact(kind, CLASSES[prepared.base.head])
