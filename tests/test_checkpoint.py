"""What goes wrong inside a run ends in one line that says what to do, and never costs what was trained before."""

import contextlib
import dataclasses
import json
import random
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import InterruptingReporter, copies, make_job, make_recipe, prepare_job, rows_of, write_rows

from tailor.core.errors import Interrupted, RunError
from tailor.core.runs import RunFolder
from tailor.engine import checkpoint
from tailor.engine.checkpoint import MANIFEST, Checkpoints, Snapshot, State, verify
from tailor.engine.guard import finite, memory_explained
from tailor.engine.loop import Job, fit
from tailor.verbs.fit import run, save_and_prove

IMPOSSIBLE = 10**15
"""Elements of a tensor that no machine has the memory for."""


def job_in(folder: Path, base: Path, reporter: InterruptingReporter | None = None, **train: Any) -> Job:
    """Full fine-tuning of a tiny causal LM, a checkpoint at every second step."""
    data = write_rows(folder.parent / "rows.jsonl", rows_of("instruction"))
    recipe = make_recipe(base, data, folder, method="full", train={"checkpoint_every": 2, "max_steps": 8, **train})
    return make_job(recipe, reporter)


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").iterdir())


def snapshot(step: int) -> Snapshot:
    values = {"a": torch.full((5, 3), float(step)), "b": torch.arange(4.0)}
    return Snapshot(State(step=step), values, {"a/step": torch.tensor(float(step))}, {})


# Writing


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    store.write(snapshot(1))
    path = store.write(snapshot(2))
    assert [folder.name for folder in tmp_path.iterdir()] == [path.name]
    found = store.newest(pytest.fail)
    assert found is not None
    assert found.state == State(step=2)
    for written, read in zip(dataclasses.astuple(snapshot(2))[1:], dataclasses.astuple(found)[1:], strict=True):
        assert written.keys() == read.keys()
        assert all(torch.equal(written[name], read[name]) for name in written)


def test_no_byte_can_change_unnoticed(tmp_path: Path) -> None:
    folder, draw = Checkpoints(tmp_path).write(snapshot(3)), random.Random(0)
    files = sorted(folder.iterdir())
    assert len(files) == 5
    for file in files * 60:
        whole = file.read_bytes()
        place = draw.randrange(len(whole))
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        file.write_bytes(changed)
        same = file.name == MANIFEST and _meaning(changed) == json.loads(whole)  # white space of one kind or another
        assert (verify(folder) is None) == same
        file.write_bytes(whole)
    assert verify(folder) is None


def _meaning(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def test_the_older_one_stays_until_the_newer_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Checkpoints(tmp_path)
    first = store.write(snapshot(1))
    monkeypatch.setattr(checkpoint, "_sync", lambda path: path.name == "weights.safetensors" and path.write_bytes(b"?"))
    second = store.write(snapshot(2))
    assert verify(second) == "weights.safetensors is not what was written"
    assert verify(first) is None
    assert store.newest_path() == first


def test_writing_a_step_again_leaves_what_is_there(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path)
    before = store.write(snapshot(1)).stat()
    assert store.write(snapshot(1)).stat() == before


def test_a_checkpoint_of_another_recipe_is_refused(llama: Path, tmp_path: Path) -> None:
    fit(job_in(tmp_path / "run", llama, max_steps=2))
    recipe = make_recipe(llama, tmp_path / "rows.jsonl", tmp_path / "run", method="lora")
    with pytest.raises(RunError, match="belongs to another recipe"):
        fit(make_job(recipe))


# Full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for one checkpoint and a half."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(
    llama: Path, tmp_path: Path, small_disk: Path
) -> None:
    room = small_disk / "run" / "checkpoints"
    with pytest.raises(RunError, match="the disk is full; the last checkpoint is ") as raised:
        fit(job_in(small_disk / "run", llama))
    assert raised.value.code == "disk_full"
    assert "--resume" in raised.value.fix
    last = next(room.glob("step-*"))
    assert str(last) in raised.value.message
    assert verify(last) is None
    assert not list(room.glob(".part-*"))
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    fit(job_in(small_disk / "run", llama))
    fit(job_in(tmp_path / "alone", llama))
    assert (small_disk / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "alone" / "metrics.jsonl").read_bytes()


def test_a_log_that_cannot_be_written_is_explained(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    job = job_in(tmp_path / "run", llama)
    with file_limit(300), pytest.raises(RunError, match="no checkpoint had been written before") as raised:
        fit(job)
    assert raised.value.code == "checkpoint"


@contextlib.contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_cannot_be_written_names_the_one_before(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(job_in(tmp_path / "run", llama, InterruptingReporter(2)))
    job = job_in(tmp_path / "run", llama)
    with file_limit(100_000), pytest.raises(RunError, match=r"could not be written: .*step-00000002") as raised:
        fit(job)
    assert raised.value.code == "checkpoint"
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-00000002"]
    assert verify(checkpoints(tmp_path / "run")[0]) is None


# Numbers that are none


def test_a_rate_far_too_high_ends_in_a_line_and_a_checkpoint(llama: Path, tmp_path: Path) -> None:
    reporter = InterruptingReporter()
    train = {"learning_rate": 1e30, "checkpoint_every": 8, "optimizer": {"clip": None}}
    with pytest.raises(RunError, match=r"is (nan|inf) at step \d") as raised:
        fit(job_in(tmp_path / "run", llama, reporter, **train))
    assert raised.value.code == "not_finite"
    assert "lower train.learning_rate" in raised.value.fix
    lines = {f"rows.jsonl:{line}" for line in range(1, 25)}
    named = raised.value.message.partition("on rows ")[2].split(", ")
    assert 1 <= len(named) <= 3
    assert {Path(name).name for name in named} <= lines
    (kept,) = checkpoints(tmp_path / "run")
    assert verify(kept) is None
    assert any(str(kept) in text for text in reporter.said)


def test_a_weight_that_is_no_number_stops_before_the_first_step(llama: Path, tmp_path: Path) -> None:
    job = job_in(tmp_path / "run", llama)
    with torch.no_grad():
        next(iter(job.attached.trainable().values()))[:] = float("nan")
    before = copies({name: value for name, value in job.attached.trainable().items() if not value.isnan().any()})
    with pytest.raises(RunError, match="the loss is nan at step 1, on rows "):
        fit(job)
    after = job.attached.trainable()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_rows_are_looked_up_only_when_something_is_wrong(llama: Path, tmp_path: Path) -> None:
    """A look-up searches the training data: done at every step it would cost more than the step."""
    fit(dataclasses.replace(job_in(tmp_path / "run", llama), locate=pytest.fail))
    with pytest.raises(RunError, match="the loss is nan at step 5, on rows a, b, c "):
        finite(torch.tensor(float("nan")), "loss", 4, iter("abcdefgh"))


# Memory


def test_running_out_of_memory_names_the_setting(llama: Path, tmp_path: Path) -> None:
    reporter = InterruptingReporter()
    job = job_in(tmp_path / "run", llama, reporter, tokens_per_micro_batch=300, checkpoint_every=8)
    forward: Any = job.base.forward

    def hungry(*arguments: Any) -> Any:
        return forward(*arguments) if reporter.step < 3 else torch.empty(IMPOSSIBLE)

    job.base.forward = hungry  # type: ignore[method-assign]
    with pytest.raises(RunError, match="out of memory with 300 tokens in a micro-batch") as raised:
        fit(job)
    assert raised.value.code == "out_of_memory"
    assert raised.value.fix.startswith("train.tokens_per_micro_batch=150 ")
    (kept,) = checkpoints(tmp_path / "run")
    assert kept.name == "step-00000003"
    assert verify(kept) is None
    smaller = job_in(tmp_path / "run", llama, tokens_per_micro_batch=150, checkpoint_every=8)
    assert fit(smaller).state.step == 8


def test_a_run_resumes_with_smaller_micro_batches(llama: Path, tmp_path: Path) -> None:
    """As the line about memory says; what decides the weights is held to."""
    data = write_rows(tmp_path / "rows.jsonl", rows_of("instruction"))
    first, smaller, other = (
        make_recipe(llama, data, tmp_path / "run", method="lora", train={"max_steps": 4, **train})
        for train in ({}, {"tokens_per_micro_batch": 100}, {"learning_rate": 1e-5})
    )
    with pytest.raises(Interrupted):
        run(first, resume=False, reporter=InterruptingReporter(2))
    with pytest.raises(RunError, match="begun with another recipe"):
        run(other, resume=True, reporter=InterruptingReporter())
    with pytest.raises(Interrupted):
        run(smaller, resume=True, reporter=InterruptingReporter(3))


def test_an_artefact_that_does_not_fit_the_disk_is_explained(llama: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows_of("instruction"))
    recipe = make_recipe(llama, data, tmp_path / "run", method="full", train={"max_steps": 1})
    prepared, job = prepare_job(recipe)
    with file_limit(50_000), pytest.raises(RunError, match="the model cannot be saved: "):
        save_and_prove(prepared, job, RunFolder(job.folder))
    assert not list(job.folder.glob("*model*"))


def test_other_errors_are_not_mistaken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_explained("here", "", ""):
        torch.ones(2, 3) @ torch.ones(2, 3)
    with pytest.raises(RunError, match="out of memory here"), memory_explained("here", "", ""):
        torch.empty(IMPOSSIBLE)
