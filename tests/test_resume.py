"""A run that is killed at any moment, stopped or damaged goes on to the very bytes of one that nothing disturbed.

As a script this file is one sitting of a run in a process of its own: `python tests/test_resume.py RECIPE.yaml`.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny import InterruptingReporter, make_job, make_recipe, rows_of, write_rows

from tailor.core.errors import Interrupted
from tailor.core.reporting import Reporter
from tailor.engine.checkpoint import MANIFEST, verify
from tailor.engine.loop import fit
from tailor.recipe.recipe import Recipe, load

STEPS = 100
PATIENCE = 60.0
"""Seconds that a process has to start and write a checkpoint."""

METHOD = {"name": "lora", "rank": 4, "dropout": 0.1}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data for every run of this file."""
    return write_rows(tmp_path_factory.mktemp("rows") / "chat.jsonl", rows_of("chat", 40))


def recipe_for(base: Path, rows: Path, output: Path, steps: int, every: int) -> Recipe:
    """With dropout, a dev split and early stopping at work: all that a run has to remember."""
    schedule = {"name": "cosine", "warmup": 0.1}
    train = {"max_steps": steps, "checkpoint_every": every, "patience": 50, "schedule": schedule}
    return make_recipe(base, rows, output, method=METHOD, train=train, splits={"dev": 0.2})


def outcome(folder: Path) -> dict[str, bytes]:
    """Log, final weights, optimizer state and best weights, byte for byte."""
    assert not list((folder / "checkpoints").glob(".part-*"))
    files = [folder / "metrics.jsonl", *sorted((folder / "checkpoints").glob("*/*.safetensors"))]
    assert len(files) == 4
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def undisturbed(llama: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The run of the killing tests, left alone, in this process."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    fit(make_job(recipe_for(llama, rows, folder, STEPS, 3)))
    return outcome(folder)


# Killed


def newest(folder: Path) -> str:
    return max((path.name for path in (folder / "checkpoints").glob("step-*")), default="")


@contextlib.contextmanager
def sitting(recipe: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that begins or resumes the run; what is left of it at the end is killed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, __file__, str(recipe)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(process: "subprocess.Popen[str]", reached: Callable[[], bool]) -> None:
    """Poll without a pause, so that not even a few milliseconds are missed."""
    end = time.monotonic() + PATIENCE
    while not reached():
        assert process.poll() is None, "the run ended before it could be disturbed"
        assert time.monotonic() < end


def stop_while_writing(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Halt the process at a moment when a checkpoint is half written."""

    def half_written() -> bool:
        if not any((folder / "checkpoints").glob(".part-*")):
            return False
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.01)
        if any((folder / "checkpoints").glob(".part-*")):
            return True
        process.send_signal(signal.SIGCONT)
        return False

    wait_until(process, half_written)


def at_some_moment(process: "subprocess.Popen[str]", folder: Path, draw: random.Random) -> None:
    """Wait for another checkpoint, and then for anything up to some more of them."""
    before = newest(folder)
    wait_until(process, lambda: newest(folder) > before)
    time.sleep(draw.uniform(0.0, 0.1))


def test_a_run_killed_twice_and_stopped_once_ends_in_the_same_bytes(
    llama: Path, rows: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    folder, file, draw = tmp_path / "run", tmp_path / "recipe.yaml", random.Random(0)
    recipe_for(llama, rows, folder, STEPS, 3).save(file)
    with sitting(file) as process:
        stop_while_writing(process, folder)
    assert list((folder / "checkpoints").glob(".part-*"))
    with sitting(file) as process:
        at_some_moment(process, folder, draw)
    with sitting(file) as process:
        at_some_moment(process, folder, draw)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert process.returncode == 130, told
    assert "the state is saved in" in told
    with sitting(file) as process:
        _, told = process.communicate()
    assert process.returncode == 0, told
    assert "resuming after step" in told
    assert outcome(folder) == undisturbed


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_many_times_ends_in_the_same_bytes(
    llama: Path, rows: Path, tmp_path: Path, undisturbed: dict[str, bytes], seed: int
) -> None:
    folder, file, draw = tmp_path / "run", tmp_path / "recipe.yaml", random.Random(seed)
    recipe_for(llama, rows, folder, STEPS, 3).save(file)
    for _ in range(4):
        with sitting(file) as process:
            if draw.random() < 0.4:
                stop_while_writing(process, folder)
            else:
                at_some_moment(process, folder, draw)
    with sitting(file) as process:
        _, told = process.communicate()
    assert process.returncode == 0, told
    assert outcome(folder) == undisturbed


# Damaged


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "weights cut short": lambda folder: cut(folder / "weights.safetensors"),
    "weights flipped": lambda folder: flip(folder / "weights.safetensors"),
    "optimizer flipped": lambda folder: flip(folder / "optimizer.safetensors"),
    "state flipped": lambda folder: flip(folder / "state.json"),
    "best gone": lambda folder: (folder / "best.safetensors").unlink(),
    "manifest gone": lambda folder: (folder / MANIFEST).unlink(),
    "manifest cut short": lambda folder: cut(folder / MANIFEST),
    "manifest empty": lambda folder: (folder / MANIFEST).write_text("{}"),
    "manifest flipped": lambda folder: flip(folder / MANIFEST),
}


@pytest.fixture(scope="module")
def two_checkpoints(
    llama: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, dict[str, bytes]]:
    """A recipe whose run folder holds checkpoints of steps 4 and 7, and what the undisturbed run comes to."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    recipe = recipe_for(llama, rows, folder, 9, 4)
    with pytest.raises(Interrupted):
        fit(make_job(recipe, InterruptingReporter(4)))
    shutil.copytree(folder / "checkpoints" / "step-00000004", folder.parent / "older")
    with pytest.raises(Interrupted):
        fit(make_job(recipe, InterruptingReporter(7)))
    shutil.copytree(folder.parent / "older", folder / "checkpoints" / "step-00000004")
    alone = recipe.model_copy(update={"output": str(folder.parent / "alone")})
    fit(make_job(alone))
    return recipe, outcome(Path(alone.output))


@pytest.mark.parametrize("older", [True, False], ids=["older kept", "none kept"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(
    two_checkpoints: tuple[Recipe, dict[str, bytes]], tmp_path: Path, damage: str, older: bool
) -> None:
    recipe, expected = two_checkpoints
    folder = tmp_path / "run"
    shutil.copytree(recipe.output, folder)
    if not older:
        shutil.rmtree(folder / "checkpoints" / "step-00000004")
    assert verify(folder / "checkpoints" / "step-00000007") is None
    DAMAGES[damage](folder / "checkpoints" / "step-00000007")
    reporter = InterruptingReporter()
    fit(make_job(recipe.model_copy(update={"output": str(folder)}), reporter))
    assert [text for text in reporter.said if "step-00000007 is passed over: " in text]
    assert bool([text for text in reporter.said if text.startswith("resuming after step 4")]) == older
    shutil.rmtree(folder / "checkpoints" / "step-00000007", ignore_errors=True)
    assert outcome(folder) == expected


def main(recipe: str) -> int:
    """One sitting."""
    try:
        fit(make_job(load(Path(recipe)), Reporter()))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
