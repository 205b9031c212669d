"""The benchmark of pictures on a GPU: its shape is SDXL's, its loops run (on a small pipeline here), and without a device
it says so."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_pipelines import saved

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import gpu_pictures as bench


def test_the_shape_is_that_of_sdxl() -> None:
    with torch.device("meta"):
        pipeline = bench.sdxl()
    published = {"unet": 2_567_463_684, "vae": 83_653_863}
    assert {name: sum(p.numel() for p in getattr(pipeline, name).parameters()) for name in published} == published


@pytest.mark.parametrize("loop", bench.LOOPS)
def test_its_loops_run(loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "STEPS", 8)
    saved("sdxl", tmp_path / "base")
    bench.pictures(tmp_path / "pictures", 32)
    found = bench.LOOPS[loop](tmp_path, 2, 32, "cpu")
    assert 0 < found["pictures_per_second"] < 10_000


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure for minutes")
def test_without_a_device_it_says_so() -> None:
    done = subprocess.run([sys.executable, bench.__file__], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no figures: this measures on a CUDA device" in done.stderr
