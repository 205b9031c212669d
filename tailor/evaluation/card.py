"""README.md of a model folder: what it is, how well it does, how to load it, where it comes from, what it cannot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath
from typing import Any, Literal

from tailor.evaluation import wording
from tailor.evaluation.report import flat

ArtefactKind = Literal["transformers", "peft", "adapter", "prompt", "diffusion_lora", "textual_inversion", "pipeline"]

_LOAD = {
    "transformers": """from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
    "peft": """from peft import PeftModel
from transformers import {auto_class}, AutoTokenizer
{labels}
base = {auto_class}.from_pretrained("{base}"{label_arguments})
model = PeftModel.from_pretrained(base, "{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
    "adapter": """import tailor

run = tailor.load("{folder}/..")  # the run folder: the base is checked against the digest in model/""",
    "prompt": """import tailor

run = tailor.load("{folder}/..")  # or copy the text of prompt.md""",
    "diffusion_lora": """from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{base}")
pipeline.load_lora_weights("{folder}")""",
    "textual_inversion": """from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{base}")
pipeline.load_textual_inversion("{folder}")""",
    "pipeline": """from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained("{folder}")""",
}
_LIBRARIES = {"transformers": "transformers", "peft": "peft", "adapter": "tailor", "prompt": "tailor"}
_PIPELINE_TAGS = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSeq2SeqLM": "text2text-generation",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForMaskedLM": "fill-mask",
}
_LABELS = """
import json

labels = json.load(open("{folder}/labels.json"))"""


@dataclass(frozen=True, slots=True)
class Artefact:
    """What lies in `model/` and how stock libraries load it.

    Args:
        kind: the form of the folder.
        auto_class: the transformers class of the model or its base, where there is one.
        folder: the path in the loading example.
    """

    kind: ArtefactKind
    auto_class: str = ""
    folder: str = "model"


def model_card(
    summary: Mapping[str, Any],
    artefact: Artefact,
    *,
    evaluation: Mapping[str, Any] | None = None,
    proof: Mapping[str, Any] | None = None,
    lock: Mapping[str, Any] | None = None,
    licence: str = "",
) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        summary: the JSON answer of `fit`.
        artefact: what is to be loaded.
        evaluation: evaluation.json.
        proof: proof.json.
        lock: lock.json; its digests and versions are quoted.
        licence: the base's licence as an SPDX name, where it is known.
    """
    base = _portable(str(summary["base"]))
    tasks = (evaluation or {}).get("tasks", {})
    parts = [
        _front_matter(summary, artefact, base, licence),
        f"# {_title(base)}, tuned by {summary['method']}",
        f"Trained with Tailor: objective {summary['objective']}, method {summary['method']}, base `{base}`.",
        *(_measured(name, result, len(tasks)) for name, result in tasks.items()),
        f"## Loading\n\n```python\n{_loading(artefact, base)}\n```",
        _provenance(summary, proof or {}, lock or {}),
        _limits(tasks, (evaluation or {}).get("forgetting"), licence),
    ]
    return "\n\n".join(parts) + "\n"


def _portable(base: str) -> str:
    """A base's name without the path of the machine that it was trained on."""
    path = PureWindowsPath(base) if PureWindowsPath(base).drive.endswith(":") else PurePath(base)
    return path.name if path.is_absolute() else base


def _title(base: str) -> str:
    return base.rpartition("/")[2].removeprefix("pocket:")


def _front_matter(summary: Mapping[str, Any], artefact: Artefact, base: str, licence: str) -> str:
    import yaml

    fields = {
        "base_model": base,
        "library_name": _LIBRARIES.get(artefact.kind, "diffusers"),
        "pipeline_tag": _PIPELINE_TAGS.get(artefact.auto_class),
        "license": licence or None,
        "tags": ["tailor", summary["method"], summary["objective"]],
    }
    known = {key: value for key, value in fields.items() if value is not None}
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=True)}---"


def _measured(name: str, result: Mapping[str, Any], tasks: int) -> str:
    """One task's sentence and metric table."""
    lines = ["| Metric | Base | Tuned | Difference | 95 % interval | Chance |", "|---|---|---|---|---|---|"]
    for metric, entry in result["metrics"].items():
        title = wording.named(metric)[0].replace("|", "\\|")
        low, high = (wording.change(metric, bound) for bound in entry["ci95"])
        values = (wording.figure(metric, entry[side]) for side in ("base", "tuned"))
        cells = [
            title,
            *values,
            wording.change(metric, entry["delta"]),
            f"{low} to {high}",
            wording.chance(entry["p_value"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    heading = "## How well it does" + (f": {name}" if tasks > 1 else "")
    return f"{heading}\n\n{wording.verdict_sentence(result)}\n\n" + "\n".join(lines)


def _loading(artefact: Artefact, base: str) -> str:
    """The loading example, with labels where the head has some."""
    labelled = artefact.auto_class == "AutoModelForSequenceClassification"
    parts = {
        "auto_class": artefact.auto_class,
        "folder": artefact.folder,
        # An embedded base has a folder of its own on every machine, which `tailor bases` prints.
        "base": f"FOLDER_OF_{_title(base)}" if base.startswith("pocket:") else base,
        "labels": _LABELS.format(folder=artefact.folder) if labelled else "",
        "label_arguments": ", num_labels=len(labels), id2label=dict(enumerate(labels))" if labelled else "",
    }
    note = "\n# `tailor bases` prints the folder of an embedded base" if "FOLDER_OF_" in parts["base"] else ""
    code = _LOAD[artefact.kind].format(**parts)
    return code + (note if "FOLDER_OF_" in code else "")


def _provenance(summary: Mapping[str, Any], proof: Mapping[str, Any], lock: Mapping[str, Any]) -> str:
    train = summary.get("train", {})
    lines = [f"- Base: `{_portable(str(summary['base']))}`"]
    if train:
        lines.append(f"- Training: {train.get('steps')} steps, {train.get('tokens')} tokens")
    if proof:
        by = f" by {proof['by']} libraries" if proof.get("by") == "stock" else ""
        lines.append(
            f"- Proof that this folder is the trained model: {'passed' if proof.get('passed') else 'failed'}{by}"
        )
    lines += [f"- {key}: `{_portable(value)}`" for key, value in flat(lock)]
    return "## Provenance\n\n" + "\n".join(lines)


def _limits(tasks: Mapping[str, Any], forgetting: Mapping[str, Any] | None, licence: str) -> str:
    """What the figures do not say."""
    lines = [
        "- Measured on held-out rows of the training data's own kind; on other data it may do worse."
        if tasks
        else "- Not measured: no rows were held back."
    ]
    if forgetting and "metric" in forgetting:
        metric = forgetting["metric"]
        lines.append(
            f"- {wording.named(metric)[0]}, on rows of what the base could do before, went from "
            f"{wording.figure(metric, forgetting['base'])} to {wording.figure(metric, forgetting['tuned'])}."
        )
    elif forgetting:
        lines.append(
            f"- Loss on general text went from {wording.number(forgetting['base'])} to "
            f"{wording.number(forgetting['tuned'])}: what the base could do elsewhere may have changed by as much."
        )
    lines.append("- It keeps the base's biases and errors, and may repeat what stands in its training data.")
    if not licence:
        lines.append("- The base's licence is not known here: check it before passing the model on.")
    return "## Limits\n\n" + "\n".join(lines)
