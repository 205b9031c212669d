"""A fresh process that loads an artefact as anyone would, with transformers, peft and torch alone, and runs probe rows.

Run as a file with `python -I`, so that nothing of Tailor can be imported: what it prints is what others will get.
Usage: stock_forward.py PROBE.json OUT.safetensors
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

LAST = 8
"""Positions of each row whose logits are compared, counted from its end."""


def load(probe: dict[str, Any], location: str, labels: int, problem: str | None) -> tuple[Any, list[str]]:
    """A stock class from a folder in fp32, and the names of weights that its checkpoint lacked."""
    settings: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    settings["trust_remote_code"] = probe["trust_remote_code"]
    if labels:
        settings |= {"num_labels": labels, "problem_type": problem, "ignore_mismatched_sizes": True}
    torch.manual_seed(0)
    model, info = getattr(transformers, probe["model_class"]).from_pretrained(location, **settings)
    return model.eval(), sorted(info["missing_keys"])


def mean_pool(folder: str) -> Any:
    """A trunk and its mean-pool head, as two stock parts: the mean of the real tokens' states, then one linear layer."""
    trunk = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    head = load_file(str(Path(folder) / "mean_pool_head.safetensors"))

    def forward(**inputs: torch.Tensor) -> Any:
        states = trunk(**inputs).last_hidden_state.mean(1)
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=states @ head["weight"].T + head["bias"])

    return forward


@torch.no_grad()
def outputs(model: Any, probe: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Each row alone, unpadded: (positions, vocabulary) of its last positions, or (1, labels)."""
    found = {}
    for index, row in enumerate(probe["rows"]):
        inputs = {name: torch.tensor([values]) for name, values in row.items()}
        logits = model(**inputs).logits[0]
        found[str(index)] = (logits[-LAST:] if logits.ndim == 2 else logits[None]).float().contiguous()
    return found


def main(probe_file: str, out: str) -> None:
    """Run every part that the probe names."""
    probe = json.loads(Path(probe_file).read_text())
    torch.set_num_threads(probe["threads"])
    results: dict[str, torch.Tensor] = {}

    def keep(part: str, values: dict[str, torch.Tensor]) -> None:
        results.update({f"{part}/{name}": value for name, value in values.items()})

    missing: list[str] = []
    labels, problem = probe["labels"], probe["problem"]
    if probe["mean_pool"]:
        keep("reloaded", outputs(mean_pool(probe["artefact"]), probe))
    elif probe["adapter"]:
        model, unfilled = load(probe, probe["base"], labels, problem)
        tuned = PeftModel.from_pretrained(model, probe["artefact"]).eval()
        held = load_file(str(Path(probe["artefact"]) / "adapter_model.safetensors"))
        brought = {name.removeprefix("base_model.model.") for name in held}
        missing = [name for name in unfilled if name not in brought]
        keep("reloaded", outputs(tuned, probe))
        keep("merged", outputs(tuned.merge_and_unload().eval(), probe))
    else:
        model, missing = load(probe, probe["artefact"], labels, problem)
        keep("reloaded", outputs(model, probe))
    base, _ = load(probe, probe["base"], labels, problem)
    keep("base", outputs(base, probe))
    save_file(results, out, metadata={"missing": json.dumps(missing)})


if __name__ == "__main__":
    main(*sys.argv[1:])
