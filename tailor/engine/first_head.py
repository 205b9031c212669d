"""A head that the checkpoint lacks and that no guess could stand for: fitted on the frozen trunk before the run proper.

What comes of it is the base that the run is held against, so that the run's gain is not the gain of having a head at all.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tailor.core import registry
from tailor.core.contracts import Base, Objective, OutputSpec
from tailor.core.examples import Features
from tailor.core.reporting import Reporter
from tailor.engine.loop import Job, fit
from tailor.engine.order import plain_order
from tailor.engine.place import Place, Trackers
from tailor.engine.settings import Facts, plan_of, resolve
from tailor.recipe.methods import HeadOptions
from tailor.recipe.train import TrainOptions

FITTED = "base_with_head"
"""Where a run keeps its base with the head that was fitted to it."""
STEPS = 200


@dataclass(frozen=True)
class FirstHead:
    """What the fitting of a head needs; `base` is loaded, with a new head.

    Args:
        train, dev: the run's own examples.
        hidden: the base's width, by which the learning rate goes.
        folder: the run folder.
    """

    base: Base
    objective: Objective
    output: OutputSpec
    train: Sequence[Features]
    dev: Sequence[Features]
    hidden: int
    place: Place
    folder: Path
    reporter: Reporter

    def into_base(self, options: TrainOptions) -> None:
        """Put the fitted head into the loaded base: from the run folder, where it has been fitted before."""
        parameters = dict(self.base.model.named_parameters())
        names = [name for name in self.base.head_parameters() if name in parameters]
        file = self.folder / FITTED / "head" / "head.safetensors"
        if not file.exists():
            self.reporter.say(
                f"{self.base.name} lacks {len(names)} weights of the head for this ({names[0]}, …): "
                f"it is fitted first, on the frozen trunk, in up to {STEPS} steps"
            )
            self._fit(options)
            file.parent.mkdir(parents=True, exist_ok=True)
            self.base.save(self.base.model, self.folder / FITTED)
            self.base.save_tokenizer(self.folder / FITTED)
            save_file({name: parameters[name].detach().cpu().contiguous() for name in names}, file)
        for name, value in load_file(file).items():
            parameters[name].data = value

    def _fit(self, options: TrainOptions) -> None:
        """The one loop, with the head alone as what moves; its state goes once it has ended."""
        folder = self.folder / "first_head"
        folder.mkdir(exist_ok=True)
        method = HeadOptions()
        attached = registry.load("method", method.name)(method).attach(self.base, self.output)
        attached.model.to(self.place.device)
        asked = TrainOptions(max_steps=STEPS, examples_per_batch=options.examples_per_batch, seed=options.seed)
        facts = Facts(len(self.train), self.hidden, self.place.kind, raw_text=True)
        plan = plan_of(resolve(asked, method, facts), len(self.train))
        trackers = Trackers((), folder, {})
        fit(
            Job(
                base=self.base,
                attached=attached,
                objective=self.objective,
                output=self.output,
                train=self.train,
                dev=self.dev,
                plan=plan,
                place=self.place,
                folder=folder,
                reporter=self.reporter,
                trackers=trackers,
                order=plain_order(plan.seed, len(self.train), plan.examples_per_batch),
            )
        )
        self.base.model.to(torch.device("cpu"))
        shutil.rmtree(folder)
