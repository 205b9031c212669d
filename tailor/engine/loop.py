"""THE loop: every gradient method, every objective, every base. `examples/plain_lora.py` is its no-abstraction twin.

A step: the batch's examples are grouped into micro-batches within a token budget; each adds the gradient of its loss *sum*;
the gradient is divided once by the weight of the whole batch. So the grouping changes no result.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tailor.core.contracts import UNTRAINED, Attached, Base, Objective, OutputSpec
from tailor.core.errors import Interrupted, RunError
from tailor.core.examples import Features
from tailor.core.reporting import Reporter
from tailor.engine.checkpoint import Checkpoints, Snapshot, State
from tailor.engine.guard import StopRequest, finite, memory_explained, micro_batch_explained
from tailor.engine.logs import Logs
from tailor.engine.order import step_seed
from tailor.engine.place import Place, Trackers
from tailor.nn.optim import decayed_groups, schedule


@dataclass(frozen=True)
class Plan:
    """The resolved numbers of a run."""

    steps: int
    examples_per_batch: int
    tokens_per_micro_batch: int
    learning_rate: float
    schedule: str
    warmup: float
    final: float
    weight_decay: float
    betas: tuple[float, float]
    epsilon: float
    clip: float | None
    seed: int
    look_every: int
    checkpoint_every: int
    patience: int | None


@dataclass(frozen=True)
class SearchSpace:
    """What a search works on beside the job's model.

    Args:
        generator: what answers; proposer: what reflects (None: the same).
        examples: the rows of `train` and `dev`, as (example, row as read).
        options: the method's; evaluate: what is measured, with `max_new_tokens` as a number.
    """

    generator: Any
    proposer: Any
    examples: Mapping[str, Sequence[tuple[Any, Mapping[str, Any]]]]
    options: Any
    evaluate: Any


@dataclass(frozen=True)
class Job:
    """What the loop needs, assembled by `compose`; `order` maps a step to its epoch and its examples.

    `space` is what a method that searches works on. `watch` hears of every look at dev, (step, loss), and may end the run.
    """

    base: Base
    attached: Attached
    objective: Objective
    output: OutputSpec
    train: Sequence[Features]
    dev: Sequence[Features]
    plan: Plan
    place: Place
    folder: Path
    reporter: Reporter
    trackers: Trackers
    order: Callable[[int], tuple[int, list[int]]]
    locate: Callable[[str], str] = field(default=str)
    space: SearchSpace | None = None
    watch: Callable[[int, float], bool] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a finished loop hands on; the model holds the weights that dev chose. `figures` go into the summary."""

    state: State
    steps: int
    figures: Mapping[str, Any] = field(default_factory=dict)


def fit(job: Job) -> Outcome:
    """Run (or go on with) a job to its end, and leave the chosen weights in the model.

    Raises `Interrupted` once the state has been saved, `RunError` for anything that goes wrong on the way.
    """
    loop = _Loop(job)
    try:
        with StopRequest().listening() as stop:
            return loop.run(stop)
    finally:
        loop.logs.close()
        job.trackers.close()


class _Loop:
    """One sitting of one run: model, optimizer, state and logs, moved on step by step."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.parameters = dict(job.attached.trainable())
        plan = job.plan
        self.optimizer = torch.optim.AdamW(
            decayed_groups(self.parameters, plan.weight_decay, job.attached.rate_shares()),
            lr=plan.learning_rate,
            betas=plan.betas,
            eps=plan.epsilon,
            fused=job.place.kind in ("cpu", "cuda"),
        )
        self.scaler = job.place.scaler()
        self.checkpoints = Checkpoints(job.folder / "checkpoints")
        self.state, self.best = self._restore()
        job.attached.after_step(self.state.step)
        self.logs = Logs(job.folder, self.state.sizes)

    def _restore(self) -> tuple[State, dict[str, torch.Tensor]]:
        snapshot = self.checkpoints.newest(self.job.reporter.say)
        if snapshot is None:
            return State(), {}
        _copy_into(self.parameters, snapshot.weights)
        _load_optimizer(self.optimizer, self.parameters, snapshot.optimizer)
        if snapshot.state.scaler:
            self.scaler.load_state_dict(snapshot.state.scaler)
        self.job.reporter.say(f"resuming after step {snapshot.state.step} of {self.job.plan.steps}")
        return snapshot.state, dict(snapshot.best)

    def run(self, stop: StopRequest) -> Outcome:
        """Steps to the end, looking at dev, saving and stopping as planned."""
        plan, state = self.job.plan, self.state
        self._sitting, self._before = time.perf_counter(), state.seconds
        bar = self.job.reporter.progress("training", plan.steps, state.step)
        with bar as progress, self.checkpoints.disk_explained():
            while state.step < plan.steps and not state.stopped:
                try:
                    figures = self._step()
                except RunError:
                    self._save_at_failure()
                    raise
                progress.advance(f"loss {figures['loss']:.3f} · {self._tokens_per_second():,.0f} tokens/s")
                self._look_and_save(stop)
        if self.best:
            _copy_into(self.parameters, self.best)
            self.job.reporter.say(f"dev chose the weights of step {state.best_step} of {state.step}")
        return Outcome(state, state.step)

    def _step(self) -> Mapping[str, float]:
        """One optimizer step; nothing has moved if it raises."""
        plan, job, state = self.job.plan, self.job, self.state
        epoch, indices = job.order(state.step)
        features = job.base.draw([job.train[index] for index in indices], job.output, (plan.seed, epoch))
        job.attached.train_mode()
        self.optimizer.zero_grad(set_to_none=True)
        total = weight = 0.0
        computed = 0
        for part, group in enumerate(micro_batches(job, features)):
            torch.manual_seed(step_seed(plan.seed, state.step, part))
            members = [features[index] for index in group]
            with micro_batch_explained(plan.tokens_per_micro_batch, len(members)):
                part_total, part_weight, cells = self._accumulate(members)
            total, weight, computed = total + part_total, weight + part_weight, computed + cells
        rate = self._descend(weight, self._rows(features))
        state.step += 1
        job.attached.after_step(state.step)
        return self._record(total / weight, rate, features, computed)

    def _accumulate(self, members: Sequence[Features]) -> tuple[float, float, int]:
        """Add the gradient of one micro-batch's loss sum: the sum, its weight and the cells computed."""
        job = self.job
        batch = job.base.collate(members, job.output).to(job.place.device)
        with job.place.autocast():
            outputs = job.base.forward(job.attached.model, batch)
        loss = job.objective.loss(outputs, batch)
        finite(loss.total.detach(), "loss", self.state.step, self._rows(members))
        self.scaler.scale(loss.total).backward()
        return float(loss.total.detach()), loss.weight, batch.computed_tokens

    def _rows(self, features: Sequence[Features]) -> Iterator[str]:
        """Where the examples stand in the user's files, each looked up when it is asked for."""
        return (self.job.locate(feature.example_id) for feature in features)

    def _descend(self, weight: float, rows: Iterator[str]) -> float:
        """Divide the gradient by the batch's weight, clip it, and step; returns the learning rate used."""
        plan = self.job.plan
        self.scaler.unscale_(self.optimizer)
        gradients = [value.grad for value in self.parameters.values() if value.grad is not None]
        torch._foreach_mul_(gradients, 1.0 / weight)
        norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), plan.clip or float("inf"))
        if not self.scaler.is_enabled():
            finite(norm, "gradient's norm", self.state.step, rows)
        rate = plan.learning_rate * schedule(plan.schedule, self.state.step, plan.steps, plan.warmup, plan.final)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        with memory_explained("for the optimizer's state", "method", "method=lora needs a fraction of it"):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        return rate

    def _record(self, loss: float, rate: float, features: Sequence[Features], computed: int) -> Mapping[str, float]:
        """Move the counters on and log one line of figures and one of timings."""
        state = self.state
        state.tokens += sum(len(feature) for feature in features)
        state.supervised_tokens += sum(sum(map(bool, feature.weights)) or 1 for feature in features)
        state.computed_tokens += computed
        state.loss_first = loss if state.loss_first is None else state.loss_first
        state.loss_last = loss
        state.seconds = self._before + time.perf_counter() - self._sitting
        figures = {
            "step": state.step,
            "loss": loss,
            "lr": rate,
            "tokens": state.tokens,
            "supervised_tokens": state.supervised_tokens,
            "work_ratio": state.computed_tokens / state.tokens,
        }
        self.logs.metrics(figures)
        self.logs.timing(
            {
                "step": state.step,
                "seconds": state.seconds,
                "tokens_per_second": self._tokens_per_second(),
                "memory_bytes": self.job.place.peak_memory(),
            }
        )
        self.job.trackers.log(figures, state.step)
        return figures

    def _tokens_per_second(self) -> float:
        return self.state.tokens / max(1e-9, self.state.seconds)

    def _look_and_save(self, stop: StopRequest) -> None:
        """Look at dev and write a checkpoint where the plan says so; raise `Interrupted` where the user asked to stop."""
        plan, state = self.job.plan, self.state
        last = state.step == plan.steps
        if self.job.dev and (state.step % plan.look_every == 0 or last):
            self._look()
        if state.step % plan.checkpoint_every == 0 or last or state.stopped or stop.asked:
            path = self._save()
            if stop.asked and not last:
                raise Interrupted(
                    f"stopped after step {state.step}; the state is saved in {path}",
                    fix=f"tailor fit {self.job.folder / 'recipe.yaml'} --resume",
                )

    def _look(self) -> None:
        """The loss on dev; keep the weights where it is the best so far, count the looks where it is not."""
        state, plan = self.state, self.job.plan
        loss = dev_loss(self.job)
        self.logs.metrics({"step": state.step, "dev_loss": loss})
        self.job.trackers.log({"dev_loss": loss}, state.step)
        if self.job.watch is not None and self.job.watch(state.step, loss):
            state.stopped = True
        if state.best_loss is None or loss < state.best_loss:
            state.best_loss, state.best_step, state.looks_without_gain = loss, state.step, 0
            self.best = {name: value.detach().cpu().clone() for name, value in self.parameters.items()}
            return
        state.looks_without_gain += 1
        if plan.patience is not None and state.looks_without_gain >= plan.patience and state.step < plan.steps:
            state.stopped = True
            self.job.reporter.say(
                f"stopped early after step {state.step}: dev has not improved in {state.looks_without_gain} looks"
            )

    def _save(self) -> Path:
        self.state.sizes = self.logs.sync()
        self.state.scaler = self.scaler.state_dict()
        weights = {name: value.detach().cpu() for name, value in self.parameters.items()}
        optimizer = _optimizer_tensors(self.optimizer, self.parameters)
        return self.checkpoints.write(Snapshot(self.state, weights, optimizer, self.best))

    def _save_at_failure(self) -> None:
        """Keep what was trained so far: a step that raised has changed no weight."""
        if not self.state.step:
            return
        try:
            self.job.reporter.say(f"what was trained so far is kept in {self._save()}")
        except RunError as failure:
            self.job.reporter.say(f"what was trained so far could not be kept: {failure}")


@torch.no_grad()
def dev_loss(job: Job) -> float:
    """Loss per unit of weight on dev, in evaluation mode: a sum over a weight, whatever the grouping; tasks count alike."""
    job.attached.model.eval()
    sums: dict[str, tuple[float, float]] = {}
    lengths_budget = job.plan.tokens_per_micro_batch
    features = job.base.draw(list(job.dev), job.output, UNTRAINED)
    for indices in dev_batches(job, features):
        batch = job.base.collate([features[index] for index in indices], job.output).to(job.place.device)
        with job.place.autocast(), micro_batch_explained(lengths_budget, len(indices)):
            loss = job.objective.loss(job.base.forward(job.attached.model, batch), batch)
        total, weight = sums.get(batch.task, (0.0, 0.0))
        sums[batch.task] = total + float(loss.total), weight + loss.weight
    return sum(total / weight for total, weight in sums.values()) / len(sums)


def micro_batches(job: Job, features: Sequence[Features]) -> list[list[int]]:
    """The parts of a batch that are run at once; all of it, where the loss couples its examples."""
    if job.objective.couples:
        return [list(range(len(features)))]
    return job.base.micro_batches(features, job.plan.tokens_per_micro_batch)


def dev_batches(job: Job, features: Sequence[Features]) -> list[list[int]]:
    """As `micro_batches`, over all of dev; a loss that couples examples is taken over batches of the training's size."""
    size = job.plan.examples_per_batch if job.objective.couples else len(features)
    tasks: dict[str, list[int]] = {}
    for index, feature in enumerate(features):
        tasks.setdefault(feature.task, []).append(index)
    parts = [own[start : start + size] for own in tasks.values() for start in range(0, len(own), max(1, size))]
    return [
        [part[index] for index in group] for part in parts for group in micro_batches(job, [features[i] for i in part])
    ]


def _copy_into(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    if set(parameters) != set(values):
        raise RunError(
            "this checkpoint belongs to another recipe: its weights have other names", fix="choose a new output"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def _optimizer_tensors(optimizer: Any, parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """The optimizer's state as `parameter/key` tensors; the parameter's name outlives any order of groups."""
    return {
        f"{name}/{key}": value.detach().cpu().clone()
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load_optimizer(optimizer: Any, parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, Any]) -> None:
    for flat, value in values.items():
        name, _, key = flat.rpartition("/")
        parameter = parameters[name]
        place = "cpu" if key == "step" and not optimizer.defaults["fused"] else parameter.device
        optimizer.state[parameter][key] = value.to(place)
