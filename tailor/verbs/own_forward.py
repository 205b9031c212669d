"""A fresh process that loads an artefact of our own form as `tailor.load` does, and runs probe rows.

The counterpart of `evaluation/stock_forward.py` for what stock libraries cannot load. Usage: python -m
tailor.verbs.own_forward PROBE.json OUT.safetensors
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tailor.bases.loading import HEAD_DESCRIPTION, Source, find
from tailor.core import registry
from tailor.core.contracts import EncodeOptions, Head, OutputSpec
from tailor.evaluation.stock_forward import Findings
from tailor.recipe.base import BaseOptions

ASKED: dict[str, Head] = {"sequence": "tokens"}
"""Heads that a base gives under another name than they are asked for."""


def main(probe_file: str, out: str) -> None:
    """The artefact, the same with its adapters switched off, and the base alone."""
    probe = json.loads(Path(probe_file).read_text(encoding="utf-8"))
    torch.set_num_threads(probe["threads"])
    found = Findings(probe)
    options = BaseOptions(
        name=probe["base"],
        revision=probe["revision"],
        trust_remote_code=probe["trust_remote_code"],
        quantize=probe["quantize"],
    )
    below = replace(find(options), adapters=tuple(probe["under"]))
    source = _artefact(below, Path(probe["artefact"]), options)
    head = ASKED.get(probe["head"], probe["head"])
    output = OutputSpec(head, source.labels, probe["problem"] or "", source.pooling)
    tuned = _loaded(source, output)
    found.check(tuned)
    found.run("reloaded", tuned)
    if output.labels and source.head is None:
        with tuned.disable_adapter():
            found.run("off", tuned)
    del tuned
    found.run("base", _loaded(below, output))
    save_file(found.tensors, out, metadata={"report": json.dumps(found.report)})


def _artefact(below: Source, folder: Path, options: BaseOptions) -> Source:
    """An adapter on its base; one task's head on the trunk that lies beside it."""
    if (folder / HEAD_DESCRIPTION).exists():
        return find(options.model_copy(update={"name": str(folder), "revision": None}))
    return replace(below, adapters=(*below.adapters, str(folder)))


def _loaded(source: Source, output: OutputSpec) -> Any:
    """A model in fp32 on the CPU, in evaluation mode; a head that its source lacks is drawn alike every time."""
    base = registry.load("base", source.family)(source, EncodeOptions(packing=False))
    torch.manual_seed(0)
    base.load(output, torch.float32)
    return base.model.eval()


if __name__ == "__main__":
    main(*sys.argv[1:])
