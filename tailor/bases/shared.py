"""One trunk under several tasks: each task's own base, its head on the trunk that all of them share."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tailor.bases.heads import HEAD_FILE, TRUNK
from tailor.core.contracts import Base, Batch, Outputs, OutputSpec
from tailor.core.examples import Features


class SharedBase:
    """Several tasks' bases over one trunk. A step's examples are of one task, dev's of all."""

    def __init__(self, trunk: Base, tasks: Mapping[str, Base], outputs: Mapping[str, OutputSpec]) -> None:
        self.trunk = trunk
        self.tasks = dict(tasks)
        self.outputs = dict(outputs)
        self.name, self.family, self.source = trunk.name, trunk.family, trunk.source
        self.model: Any = None

    def load(self, dtype: torch.dtype) -> None:
        """Load the trunk once, and lay every task's head onto it."""
        self.trunk.load(OutputSpec("embedding"), dtype)
        for name, base in self.tasks.items():
            base.load(self.outputs[name], dtype)
            base.model = graft(base.model, self.trunk.model, self.outputs[name])
        self.model = TaskModels({name: base.model for name, base in self.tasks.items()})

    def head_parameters(self) -> list[str]:
        """Names of the tasks' own parameters in `model`."""
        trunk = {id(value) for value in self.trunk.model.parameters()}
        return [name for name, value in self.model.named_parameters() if id(value) not in trunk]

    def save_tokenizer(self, folder: Path) -> None:
        """The trunk's."""
        self.trunk.save_tokenizer(folder)

    def draw(self, features: Sequence[Features], output: OutputSpec, key: tuple[int, int]) -> list[Features]:
        """The examples as each task's base shows them."""
        return [self.tasks[one.task].draw([one], self.outputs[one.task], key)[0] for one in features]

    def micro_batches(self, features: Sequence[Features], budget: int) -> list[list[int]]:
        """Groups of one task each, within a budget of cells."""
        groups: list[list[int]] = []
        for name in dict.fromkeys(feature.task for feature in features):
            own = [index for index, feature in enumerate(features) if feature.task == name]
            parts = self.tasks[name].micro_batches([features[index] for index in own], budget)
            groups += [[own[place] for place in part] for part in parts]
        return groups

    def collate(self, features: Sequence[Features], output: OutputSpec) -> Batch:
        """One task's batch."""
        task = features[0].task
        return replace(self.tasks[task].collate(features, self.outputs[task]), task=task)

    def forward(self, model: Any, batch: Batch) -> Outputs:
        """The task's own rows of outputs."""
        return self.tasks[batch.task].forward(model.of(batch.task), batch)


class TaskModels(torch.nn.Module):
    """The tasks' models, which share their trunk's modules."""

    def __init__(self, models: Mapping[str, Any]) -> None:
        super().__init__()
        self.models = torch.nn.ModuleDict(models)

    def of(self, task: str) -> torch.nn.Module:
        """One task's model."""
        return self.models[task]


def graft(model: Any, trunk: Any, output: OutputSpec) -> Any:
    """The model with a trunk in the place of its own; what was tied to that is tied again."""
    if output.head in TRUNK:
        return trunk
    setattr(model, model.base_model_prefix, trunk)
    getattr(model, "tie_weights", lambda: None)()
    return model


def own_parameters(model: Any, trunk: Any) -> dict[str, torch.Tensor]:
    """A task's parameters and buffers beside the trunk, by their names in the task's model."""
    shared = {id(value) for value in (*trunk.parameters(), *trunk.buffers())}
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: value.detach().cpu().contiguous() for name, value in named if id(value) not in shared}


def save_head(model: Any, trunk: Any, folder: Path) -> None:
    """A task's own weights."""
    folder.mkdir(parents=True)
    save_file(own_parameters(model, trunk), folder / HEAD_FILE)
