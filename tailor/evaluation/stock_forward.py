"""A fresh process that loads an artefact as anyone would, with transformers, peft and torch alone, and runs probe rows.

Run as a file with `python -I`, so that nothing of Tailor can be imported: what it prints is what others will get.
Usage: stock_forward.py PROBE.json OUT.safetensors
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from safetensors.torch import load_file, save_file

LAST = 8
"""Positions of each row whose logits are compared, counted from its end."""

STOP = -1
"""Stands for whichever token ended a text."""

ADAPTER_WEIGHTS, NAME = "adapter_model.safetensors", "default"
PREFIXES = ("base_model.model.", "base_model.")
"""How PEFT begins the names of the base's own weights: under adapters, and under virtual tokens."""

SHARED = ("vblora_vector_bank", "prompt_encoder", ".tinylora_v.")
"""Parts that PEFT itself makes anew on loading, and so does not miss in a file."""

VIRTUAL_TOKENS = "prompt_embeddings"
"""The one weight of prompt tuning and its kin, which PEFT loads by itself."""


class Findings:
    """What goes back: tensors by part and row; what is wrong with the weights, and token ids of texts, by name."""

    def __init__(self, probe: dict[str, Any]) -> None:
        self.probe = probe
        self.tensors: dict[str, torch.Tensor] = {}
        self.report: dict[str, Any] = {"missing": [], "unloaded": [], "unplaced": [], "not_finite": [], "texts": {}}

    @torch.no_grad()
    def run(self, part: str, model: torch.nn.Module) -> None:
        """Each row alone, unpadded: (positions, vocabulary) of its last positions, or (1, labels)."""
        for index, row in enumerate(self.probe["rows"]):
            inputs = {name: torch.tensor([values]) for name, values in row.items()}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            self.tensors[f"{part}/{index}"] = read_off(model(**inputs), len(row["input_ids"])).contiguous()

    def check(self, model: torch.nn.Module) -> None:
        """Note the weights that are not numbers."""
        self.report["not_finite"] = [name for name, value in model.named_parameters() if not value.isfinite().all()]

    @torch.no_grad()
    def write(self, part: str, model: Any) -> None:
        """Greedy continuations of the prompts, in one batch that is padded on the left, and by how much each token led."""
        prompts, stops = self.probe["prompts"], self.probe["stops"]
        if not prompts:
            return
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=self.probe["new_tokens"],
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=stops or None,
            pad_token_id=stops[0] if stops else 0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        best = torch.stack([scores.topk(2).values for scores in written.scores], 1)
        leads = (best[..., 0] - best[..., 1]).tolist()
        rows = [until_stop(row, set(stops)) for row in written.sequences[:, -len(written.scores) :].tolist()]
        self.report["texts"][part] = [[row, lead[: len(row)]] for row, lead in zip(rows, leads, strict=True)]


def read_off(result: Any, length: int) -> torch.Tensor:
    """One row's outputs in fp32: (positions, vocabulary or width) at its last positions, (1, labels), of a span (2, L).

    Outputs of virtual tokens, which stand before those of the row's own `length` tokens, are left out.
    """
    if "start_logits" in result:
        return torch.stack([result.start_logits[0, -length:], result.end_logits[0, -length:]]).float()
    values = (result.logits if "logits" in result else result.last_hidden_state)[0]
    kept: torch.Tensor = values[-min(LAST, length) :] if values.ndim == 2 else values[None]
    return kept.float()


def until_stop(ids: list[int], stops: set[int]) -> list[int]:
    """The tokens up to the first stop, which is written as `STOP`, whichever it was."""
    end = next((place for place, token in enumerate(ids) if token in stops), None)
    return ids if end is None else [*ids[:end], STOP]


class MeanPool(torch.nn.Module):
    """A trunk and its mean-pool head, as two stock parts: the mean of a row's states, then one linear layer."""

    def __init__(self, trunk: torch.nn.Module, folder: str) -> None:
        super().__init__()
        self.trunk = trunk
        weights = load_file(str(Path(folder) / "mean_pool_head.safetensors"))
        outputs, width = weights["weight"].shape
        self.head = torch.nn.Linear(width, outputs)
        self.head.load_state_dict(weights)

    def forward(self, **inputs: torch.Tensor) -> Any:
        """Logits (1, labels) of one row."""
        return transformers.modeling_outputs.SequenceClassifierOutput(
            logits=self.head(self.trunk(**inputs).last_hidden_state.mean(1))
        )


def load(probe: dict[str, Any], location: str, revision: str = "main") -> tuple[Any, list[str]]:
    """A stock class from a folder in fp32, and the weights that its checkpoint lacked or held in another shape."""
    settings: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    settings |= {"trust_remote_code": probe["trust_remote_code"], "revision": revision}
    if probe["labels"]:
        settings |= {"num_labels": probe["labels"], "ignore_mismatched_sizes": True}
    if probe["quantize"]:
        settings["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )
    if probe["problem"]:
        settings["problem_type"] = probe["problem"]
    torch.manual_seed(0)
    model, info = getattr(transformers, probe["model_class"]).from_pretrained(location, **settings)
    lacking = {*info["missing_keys"], *(entry[0] for entry in info.get("mismatched_keys", []))}
    if probe["model_class"] == "AutoModel":
        lacking = without_pooler(lacking)
    return model.eval(), sorted(lacking)


def without_pooler(names: Iterable[str]) -> set[str]:
    """Where token states are read, no pooler has a say."""
    return {name for name in names if "pooler" not in name}


def load_base(probe: dict[str, Any]) -> tuple[Any, list[str]]:
    """The base, with the adapters that belong to it merged in."""
    model, lacking = load(probe, probe["base"], probe["revision"])
    for folder in probe["under"]:
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        model = PeftModel.from_pretrained(model, folder, ignore_mismatched_sizes=True).merge_and_unload().eval()
        held = load_file(str(Path(folder) / ADAPTER_WEIGHTS)).items()
        brought = {bare(name) for name, value in held if value.shape == shapes.get(bare(name))}
        lacking = [name for name in lacking if name not in brought]
    return model, lacking


def bare(name: str) -> str:
    """A name in an adapter's file as the base calls it."""
    return name.removeprefix(next((prefix for prefix in PREFIXES if name.startswith(prefix)), ""))


def resize(model: Any, rows: int) -> None:
    """Give a base as many token embeddings as the artefact has, which may have learned new tokens."""
    if rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=False)


def prove_adapter(probe: dict[str, Any], found: Findings) -> None:
    """The base, the adapter on it, the adapter's layers switched off, and the merge."""
    model, lacking = load_base(probe)
    held = load_file(str(Path(probe["artefact"]) / ADAPTER_WEIGHTS))
    table = model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    resize(model, len(held.get(f"{PREFIXES[0]}{name}.weight", table.weight)))
    found.run("base", model)
    found.write("base", model)
    brought = {bare(name) for name in held}
    found.report["missing"] = [name for name in lacking if name not in brought]
    try:
        tuned = PeftModel.from_pretrained(model, probe["artefact"]).eval()
        # PEFT only warns of what it could not load; loading once more tells.
        loaded = tuned.load_adapter(probe["artefact"], NAME)
    except KeyError as error:
        if not str(error.args[0]).startswith(PREFIXES):
            raise
        found.report["missing"] = sorted({*found.report["missing"], bare(str(error.args[0]))})
        return
    except (RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        sys.exit("the adapter does not fit this base: " + next((x for x in lines if "size mismatch" in x), lines[0]))
    found.report["unloaded"] = [key for key in loaded.missing_keys if not any(part in key for part in SHARED)]
    found.report["unplaced"] = [key for key in loaded.unexpected_keys if key != VIRTUAL_TOKENS]
    found.check(tuned)
    found.run("reloaded", tuned)
    found.write("reloaded", tuned)
    run_switched_off(tuned, found)
    if isinstance(tuned.base_model, BaseTuner) and not probe["quantize"]:
        found.run("merged", tuned.merge_and_unload().eval())


def run_switched_off(tuned: Any, found: Findings) -> None:
    """The head that was saved with an adapter without its layers: beside a trained head a dead adapter would not show."""
    layers = [module for module in tuned.modules() if isinstance(module, BaseTunerLayer)]
    if not layers or not getattr(tuned.peft_config[NAME], "modules_to_save", None):
        return
    for layer in layers:
        layer.enable_adapters(False)
    found.run("off", tuned)
    for layer in layers:
        layer.enable_adapters(True)


def prove_folder(probe: dict[str, Any], found: Findings) -> None:
    """The folder by itself, then the base with its weights rounded as the folder's are."""
    artefact = Path(probe["artefact"])
    if probe["mean_pool"]:
        trunk, info = transformers.AutoModel.from_pretrained(artefact, dtype=torch.float32, output_loading_info=True)
        model, lacking = MeanPool(trunk.eval(), probe["artefact"]), sorted(without_pooler(info["missing_keys"]))
    else:
        model, lacking = load(probe, probe["artefact"])
        rows = model.get_input_embeddings().weight.shape[0]
    found.report["missing"] = lacking
    found.check(model)
    found.run("reloaded", model)
    found.write("reloaded", model)
    del model
    base, _ = load_base(probe)
    if not probe["mean_pool"]:
        resize(base, rows)
    settings = json.loads((artefact / "config.json").read_text())
    stored = getattr(torch, str(settings.get("dtype") or settings.get("torch_dtype") or "float32"))
    for parameter in base.parameters():
        parameter.data = parameter.data.to(stored).float()
    found.run("base", base)
    found.write("base", base)


def main(probe_file: str, out: str) -> None:
    """Run every part that the probe names."""
    probe = json.loads(Path(probe_file).read_text())
    torch.set_num_threads(probe["threads"])
    found = Findings(probe)
    (prove_adapter if probe["adapter"] else prove_folder)(probe, found)
    save_file(found.tensors, out, metadata={"report": json.dumps(found.report)})


if __name__ == "__main__":
    main(*sys.argv[1:])
