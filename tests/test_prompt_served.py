"""A search over the wire to a server that others wrote (transformers' own), and the same one in this process."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import in_this_process

import tailor
from tailor.core.paths import embedded_base, embedded_data
from tailor.core.reporting import Reporter
from tailor.evaluation import proof

START = "import sys; from transformers.cli.transformers import main; sys.argv = ['transformers', *sys.argv[1:]]; main()"
LONGEST_START = 120
ROWS = 60


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The address of a server of the embedded causal base, up to /v1."""
    pytest.importorskip("uvicorn", reason="transformers serve needs fastapi and uvicorn")
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(embedded_base("gpt")), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", START, *words, "--dtype", "float32", "--device", "cpu"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/v1/models")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def wait_for(address: str) -> None:
    """Return once somebody answers there."""
    end = time.monotonic() + LONGEST_START
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.mark.slow
def test_fifty_words_over_the_wire_and_here(served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)
    lines = (embedded_data() / "summaries.jsonl").read_text(encoding="utf-8").splitlines()[:ROWS]
    (tmp_path / "documents.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    parts: dict[str, Any] = {
        "data": str(tmp_path / "documents.jsonl"),
        "method": {
            "name": "prompt",
            "instruction": "Summarize this document in 50 words.",
            "candidates": 4,
            "demonstrations": 2,
            "rows": 8,
            "ways": ["diverse"],
        },
        "overrides": [
            "data.dev=0.2",
            "evaluate.primary=rouge_l & max_words:50",
            "evaluate.max_new_tokens=24",
            "evaluate.samples=12",
        ],
        "reporter": Reporter(quiet=True),
    }
    here = tailor.fit(base="pocket:gpt", output=str(tmp_path / "here"), **parts)
    there = tailor.fit(base=f"{served}#{embedded_base('gpt')}", output=str(tmp_path / "there"), **parts)
    prompts = [json.loads((run.path / "model" / "prompt.json").read_text()) for run in (here, there)]
    assert prompts[0] == prompts[1]
    figures = [run.evaluation["tasks"]["default"]["metrics"]["rouge_l & max_words:50"] for run in (here, there)]
    assert figures[0] == figures[1]
    assert figures[0]["tuned"] > 0
    assert here.proof["passed"]
    assert there.proof["passed"]
