"""Whole runs of pipelines: trained, proved by stock diffusers, measured, drawn with; and what is refused, in words."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import in_this_process, prepare_job, rows_of, write_rows
from tiny_pipelines import captioned, picture, saved, tokenizer
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, Dinov2Config, Dinov2Model

import tailor
from tailor.bases.diffusion import DiffusionBase
from tailor.bases.latents import Encoders
from tailor.bases.loading import find
from tailor.bases.pictures import bucket_sizes, inspect, nearest, pixels_of, view_of
from tailor.cli.main import main
from tailor.core.contracts import Answer
from tailor.core.errors import BaseError, DataError, RecipeError, RowRefused, RunError, TailorError
from tailor.core.reporting import Reporter
from tailor.evaluation import proof
from tailor.evaluation.scorers import resolve
from tailor.recipe.base import BaseOptions
from tailor.recipe.many import parse_any
from tailor.verbs import stages

QUIET = Reporter(quiet=True)
IMPOSSIBLE = 10**15
"""Numbers that no machine has room for."""
QUICK = ["train.max_steps=4", "train.examples_per_batch=4", "train.learning_rate=1e-2", "evaluate.steps=2"]
METHODS: dict[str, Any] = {
    "lora": {"name": "lora", "rank": 4},
    "full": "full",
    "soft_prompt": {"name": "soft_prompt", "tokens": 2, "text": "red"},
}
FILES = {
    "lora": "pytorch_lora_weights.safetensors",
    "full": "model_index.json",
    "soft_prompt": "learned_embeds.safetensors",
}


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable-Diffusion-1-shaped pipeline."""
    return saved("sd", tmp_path_factory.mktemp("pipelines") / "tiny-sd")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captioned pictures of three shapes."""
    return captioned(tmp_path_factory.mktemp("pictures") / "odd")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs without the seconds that a fresh process takes."""
    monkeypatch.setattr(proof.subprocess, "run", in_this_process)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_proved_measured_and_drawn_with(
    method: str, stable: Path, odd: Path, tmp_path: Path, here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    scorer = tmp_path / "own.py"
    scorer.write_text("def size(row, picture):\n    return float(picture.size == (32, 32) and 'text' in row)\n")
    run = tailor.fit(
        base=str(stable),
        data={"train": str(odd), "subject": "wug", "test": 0.3},
        method=METHODS[method],
        output=str(tmp_path / "run"),
        overrides=[*QUICK, f"evaluate.old={odd}", "evaluate.samples=3", f"evaluate.metrics=[loss, {scorer}:size]"],
    )
    assert (run.path / "model" / FILES[method]).exists()
    assert run.proof["passed"], run.proof
    assert run.proof["by"] == "stock"
    assert run.proof["rows"] >= 8
    task = run.evaluation["tasks"]["default"]
    assert task["primary"] == "loss"
    assert task["metrics"]["loss"]["tuned"] < task["metrics"]["loss"]["base"]
    assert task["metrics"]["own.py:size"]["tuned"] == 1.0
    assert run.evaluation["forgetting"]["metric"] == "own.py:size"
    again = tailor.prove(run)
    assert again["passed"], again
    assert again["rows"] == 8
    report = (run.path / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 2 * task["n"]
    drawn = run.generate("a wug red", seed=3)
    assert drawn.size == (32, 32)
    assert drawn.tobytes() == run.generate("a wug red", seed=3).tobytes()
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["generate", str(run.path), "--prompt", "a wug red", "-n", "2", "--json"])
    files = [Path(file) for file in json.loads(capsys.readouterr().out)["answers"]]
    assert [file.parent.name for file in files] == ["generated"] * 2
    one, other = (np.asarray(each, dtype=int) for each in (Image.open(files[0]), run.generate("a wug red", seed=0)))
    assert np.abs(one - other).max() <= 2  # alone and beside another, which rounds otherwise


def test_a_tuned_pipeline_is_a_base(stable: Path, odd: Path, tmp_path: Path, here: None) -> None:
    """A LoRA run is evaluated anew and trained on, its LoRA merged beneath."""
    first = tailor.fit(
        base=str(stable), data=str(odd), method=METHODS["lora"], output=str(tmp_path / "one"), overrides=QUICK
    )
    again = tailor.evaluate(first, data=str(odd))
    assert again["tasks"]["default"]["metrics"]["loss"]["delta"] < 0
    (first.path / "model" / "base.json").write_text(json.dumps({"name": str(stable), "digest": "0" * 64}))
    with pytest.raises(BaseError, match="another base"):
        tailor.evaluate(first, data=str(odd))
    (first.path / "model" / "base.json").unlink()
    second = tailor.fit(
        base=str(first.path), data=str(odd), method=METHODS["lora"], output=str(tmp_path / "two"), overrides=QUICK
    )
    assert second.proof["passed"], second.proof


@pytest.mark.parametrize("method", ["lora", "soft_prompt"])
def test_an_adapter_of_a_pipeline_goes_on_from_stage_to_stage(
    method: str, stable: Path, odd: Path, tmp_path: Path, here: None
) -> None:
    data = {"train": str(odd), "subject": "wug", "dev": 0, "test": 0}
    settings = {"train": {"max_steps": 2, "examples_per_batch": 4, "learning_rate": 1e-2}}
    stage = {"data": data, "objective": "text_to_image", "method": METHODS[method], **settings}
    values = {"base": str(stable), "stages": [stage, stage], "compare": False, "output": str(tmp_path / "run")}
    answer = stages.run(parse_any(values), resume=False, reporter=QUIET)  # type: ignore[arg-type]
    assert answer["proof"]["passed"], answer["proof"]
    first, last = (tmp_path / "run" / "stages" / f"{number}-text_to_image" for number in (1, 2))
    source = find(BaseOptions(name=str(last)))
    assert (source.location, source.adapters) == (str(stable), (str(last / "model"),))
    assert tailor.prove(str(last))["passed"]

    base = BaseOptions(name=str(first), continue_adapter=True)
    options = parse_any({**stage, "base": base.model_dump(), "output": str(tmp_path / "next")})
    _, job = prepare_job(options)  # type: ignore[arg-type]
    (tmp_path / "saved").mkdir()
    job.attached.save(tmp_path / "saved")
    was, now = (load_file(folder / FILES[method]) for folder in (first / "model", tmp_path / "saved"))
    assert was.keys() == now.keys()
    assert all(torch.allclose(was[name], now[name], atol=1e-7) for name in was)
    moved = load_file(last / "model" / FILES[method])
    assert any(not torch.equal(was[name], moved[name]) for name in was)

    other = {**METHODS[method], **({"rank": 2} if method == "lora" else {"tokens": 3})}
    changed = parse_any({**stage, "method": other, "base": base.model_dump(), "output": str(tmp_path / "other")})
    with pytest.raises(RecipeError, match="another than this recipe's") as caught:
        prepare_job(changed)  # type: ignore[arg-type]
    assert caught.value.where == "base.continue_adapter"


def test_pictures_are_not_recorded(stable: Path, odd: Path, tmp_path: Path) -> None:
    with pytest.raises(TailorError, match="pictures are no lines of a file"):
        tailor.record(str(stable), data=str(odd), out=str(tmp_path / "answers.jsonl"))


def test_pictures_of_one_subject_are_named_by_it(stable: Path, tmp_path: Path, here: None) -> None:
    folder = tmp_path / "blue_teapot"
    folder.mkdir()
    for number in range(5):
        picture(number, (30 + 7 * number, 40)).save(folder / f"{number}.jpg")
    run = tailor.fit(
        base=str(stable), data=str(folder), method=METHODS["lora"], output=str(tmp_path / "run"), overrides=QUICK
    )
    assert "a photo of blue teapot" in (run.path / "report.html").read_text()


def test_pictures_are_upright_and_of_sizes_that_divide(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    picture(0, (60, 30)).save(tmp_path / "turned.jpg", exif=exif)
    turned = inspect(str(tmp_path / "turned.jpg"))
    assert turned.size == (30, 60)
    sizes = bucket_sizes(64, 8)
    assert sizes[0] == (64, 64)
    assert all(width % 8 == height % 8 == 0 for width, height in sizes)
    assert all(0.7 < width * height / 64**2 < 1.3 for width, height in sizes)
    width, height = size = nearest(turned.size, sizes)
    assert height > width
    assert pixels_of(view_of(turned, size)).shape == (3, height, width)
    mirrored = pixels_of(view_of(turned, size, mirrored=True))
    assert torch.equal(mirrored.flip(2), pixels_of(view_of(turned, size)))


@pytest.mark.parametrize("content", [b"", b"no picture", "half"])
def test_a_broken_picture_is_refused_by_name(content: Any, tmp_path: Path) -> None:
    file = tmp_path / "broken.png"
    if content == "half":
        picture(0, (90, 90)).save(file)
        content = file.read_bytes()[:100]
    file.write_bytes(content)
    with pytest.raises(RowRefused, match=r"broken\.png"):
        inspect(str(file))


def test_what_cannot_be_is_refused_in_words(stable: Path, odd: Path, tmp_path: Path, llama: Path) -> None:
    def refused(kind: type[TailorError], **parts: Any) -> TailorError:
        with pytest.raises(kind) as caught:
            tailor.fit(output=str(tmp_path / "run"), **{"base": str(stable), "data": str(odd), **parts})
        return caught.value

    broken = captioned(tmp_path / "broken", 5)
    (broken / "3.png").write_bytes(b"nothing")
    assert "3.png" in str(refused(DataError, data=str(broken)))
    lacking = captioned(tmp_path / "lacking", 5)
    (lacking / "2.png").unlink()
    assert "2.png" in str(refused(DataError, data=str(lacking)))
    (tmp_path / "empty").mkdir()
    assert "no data file" in str(refused(DataError, data=str(tmp_path / "empty")))
    assert "model_index.json" in str(refused(BaseError, base=str(odd)))
    for method in ("ia3", "prefix", "adapter", "head"):
        assert refused(RecipeError, method=method).code == "no_such_pair"
    assert refused(RecipeError, base=str(llama)).code == "no_such_pair"
    texts = write_rows(tmp_path / "rows.jsonl", rows_of("chat", 24))
    assert refused(RecipeError, data=str(texts)).code == "no_such_pair"
    once = ["objective.name=text_to_image", "objective.crop=random", "objective.once=true"]
    assert "another cut" in str(refused(RecipeError, overrides=once))
    learned = ["objective.name=text_to_image", "objective.text_encoder=true", "objective.once=true"]
    assert "encoder that learns" in str(refused(RecipeError, overrides=learned))
    assert refused(RecipeError, method="soft_prompt", overrides=QUICK).where == "data.subject"


def test_running_out_of_memory_is_one_line_and_loses_nothing(
    stable: Path, odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: None
) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    settings = [*QUICK, "train.tokens_per_micro_batch=1", "objective.name=text_to_image"]

    def fitted(name: str, resume: bool = False) -> Any:
        return tailor.fit(
            base=str(stable), data=str(odd), output=str(tmp_path / name), overrides=settings, resume=resume
        )

    def hungry(*_: Any, **__: Any) -> Any:
        return torch.empty(IMPOSSIBLE)

    def refused(part: type, name: str, instead: Any, resume: bool = False) -> TailorError:
        with monkeypatch.context() as patch:
            patch.setattr(part, name, instead)
            with pytest.raises(RunError) as caught:
                fitted("run", resume)
        assert caught.value.code == "out_of_memory"
        return caught.value

    encoding = refused(Encoders, "_encode", hungry)
    assert (str(encoding.where), "encoded" in str(encoding)) == ("objective.resolution", True)
    forward, seen = DiffusionBase.forward, list[int]()

    def soon_hungry(base: Any, model: torch.nn.Module, batch: Any) -> Any:
        seen.append(1) if model.training else None
        return forward(base, model, batch) if len(seen) <= 8 else hungry()

    training = refused(DiffusionBase, "forward", soon_hungry, resume=True)
    assert "one example in a micro-batch" in str(training)
    assert "objective.resolution" in training.fix
    (kept,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert kept.name == "step-00000002"
    assert "drawn" in str(refused(DiffusionBase, "paint", hungry, resume=True))
    run, unbroken = fitted("run", resume=True), fitted("unbroken")
    metrics, expected = (each.evaluation["tasks"]["default"]["metrics"] for each in (run, unbroken))
    assert metrics == expected
    one, other = ((each.path / "model" / FILES["lora"]).read_bytes() for each in (run, unbroken))
    assert one == other


def test_latents_are_encoded_once(
    stable: Path, odd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: None
) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path / "cache"))
    tailor.fit(base=str(stable), data=str(odd), output=str(tmp_path / "one"), overrides=QUICK)
    kept = list((tmp_path / "cache" / "pictures").glob("*.safetensors"))
    assert sum("mean" in load_file(file) for file in kept) == 12
    monkeypatch.setattr("tailor.bases.latents.Encoders._encode", lambda *_: pytest.fail("encoded twice"))
    tailor.fit(base=str(stable), data=str(odd), output=str(tmp_path / "two"), overrides=[*QUICK, "train.seed=0"])
    one, two = (load_file(tmp_path / name / "model" / FILES["lora"]) for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "dreambooth_dev"


def test_pictures_are_compared_by_a_folder_that_the_user_has(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**vision, "vocab_size": len(tokenizer()), "max_position_embeddings": 16}
    seeing = {**vision, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=seeing, projection_dim=8)).save_pretrained(tmp_path / "clip")
    tokenizer().save_pretrained(tmp_path / "clip")
    Dinov2Model(Dinov2Config(**seeing)).save_pretrained(tmp_path / "dino")
    for name in ("clip", "dino"):
        shape = {"size": {"height": 32, "width": 32}, "do_center_crop": False, "do_resize": True}
        CLIPImageProcessorPil(**shape).save_pretrained(tmp_path / name)
    held, other = picture(0, (32, 32)), picture(2, (32, 32))
    held.save(tmp_path / "held.png")
    answers = [
        Answer(str(number), {"image": str(tmp_path / "held.png")}, "a wug", None, given)
        for number, given in enumerate((held, other))
    ]
    names = [f"prompt_following:{tmp_path / 'clip'}"]
    names += [f"subject_similarity:{tmp_path / name}" for name in ("clip", "dino")]
    follow, *likeness = resolve(names, answers_kind="image")
    assert abs(follow.statistics(answers)[:, 0]).max() <= 1
    for metric in likeness:
        same, different = metric.statistics(answers)[:, 0]
        assert same == pytest.approx(1.0, abs=1e-5)
        assert different < same
    with pytest.raises(TailorError, match="reads text"):
        resolve([f"prompt_following:{tmp_path / 'dino'}"], answers_kind="image")
    with pytest.raises(TailorError, match="no metric"):
        resolve(names[:1], answers_kind="text")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sdxl", "sd3"])
def test_real_photos_go_through_every_step(kind: str, tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip("real photos are not beside this checkout")
    base = saved(kind, tmp_path / kind)
    run = tailor.fit(
        base=str(base),
        data=str(REAL / "dog"),
        method={"name": "lora", "rank": 4},
        output=str(tmp_path / "run"),
        overrides=["objective.name=text_to_image", "objective.resolution=64", "train.max_steps=30", *QUICK[1:]],
    )
    assert run.proof["passed"], run.proof
    assert run.evaluation["tasks"]["default"]["metrics"]["loss"]["delta"] < 0


def test_without_the_library_one_line_says_how_to_get_it(odd: Path, stable: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['diffusers'] = sys.modules['PIL'] = None\n"
        "from tailor.cli.main import main\n"
        f"main(['fit', '--base', {str(stable)!r}, '--data', {str(odd)!r}, '--output', 'unused', '--yes'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'tailor[diffusion]'" in done.stderr
    assert "Traceback" not in done.stderr
