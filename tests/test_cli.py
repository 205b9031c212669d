"""The command line as a person or a script meets it: answers, errors of one line, exit codes."""

import json
import os
import resource
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tailor.cli.main import main
from tailor.core.reporting import _Lines

QUICK = [
    "--base",
    "pocket:gpt",
    "--method",
    "lora",
    "train.max_steps=3",
    "evaluate.samples=4",
    "evaluate.max_new_tokens=4",
]


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one call."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def rows(path: Path, values: list[object]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def chat(user: str = "hello", assistant: str = "good day") -> dict[str, object]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def test_help_is_fast_and_starts_without_torch() -> None:
    code = (
        "import sys\nfrom tailor.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit: pass\n"
        "print('TORCH' if 'torch' in sys.modules else 'LIGHT')"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.strip().endswith("LIGHT")
    assert "fit" in done.stdout
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 1, "half a second of an idle machine, with room for a slow one; a busy one takes no more of it"


@pytest.mark.parametrize("statement", ["import tailor", "import tailor.api", "from tailor import check, fit, load"])
def test_importing_is_light(statement: str) -> None:
    code = f"{statement}; import sys; print(sorted({{'torch', 'transformers', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_tells_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--version")
    assert (code, out) == (0, f"tailor {version('tailor')}\n")
    assert json.loads(call(capsys, "--version", "--json")[1]) == {"version": version("tailor")}


def test_check_says_which_column_is_which_and_how_the_rows_are_divided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rows(tmp_path / "a.jsonl", [{"Ticket": f"my {i}", "Team": "ab"[i % 2], "Day": i} for i in range(40)])
    code, out, _ = call(capsys, "check", data, "--columns", "input=Ticket,output=Team")
    assert code == 0
    assert "columns: text=Ticket, label=Team" in out
    assert "split: train 24, dev 8, test 8" in out


def test_check_without_a_base_is_light(tmp_path: Path) -> None:
    data = rows(tmp_path / "a.jsonl", [chat(f"hello {i}") for i in range(12)])
    code = (
        "import sys\nfrom tailor.cli.main import main\n"
        f"try:\n    main(['check', {str(data)!r}, '--json'])\nexcept SystemExit as end: print('EXIT', end.code)\n"
        "print('TORCH' if 'torch' in sys.modules else 'LIGHT')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("EXIT 0\nLIGHT")


# --- bad input: one line, the place, the remedy, exit code 2 -------------------------------------------------------


def bad_inputs(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Name -> the words of a call, and what its one line must say."""
    good = [chat(f"hello {i}") for i in range(30)]
    (folder / "empty.jsonl").write_text("")
    lines = [json.dumps(row) for row in good]
    (folder / "broken.jsonl").write_text("\n".join([*lines[:6], '{"messages": [', *lines[6:]]))
    (folder / "latin.jsonl").write_bytes(("\n".join(lines) + "\n").encode() + '{"messages": "café"}'.encode("latin-1"))
    rows(folder / "columns.jsonl", [{"ticket": f"my order {i} is late", "team": "post"} for i in range(30)])
    two = {"messages": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]}
    rows(folder / "roles.jsonl", [*good, two])
    rows(folder / "long.jsonl", [*good, chat("word " * 3000)])
    rows(folder / "labels.jsonl", [{"text": f"row {i} of many", "label": "ab"[i % 2]} for i in range(40)])
    rows(folder / "held.jsonl", [{"text": "another one", "label": "c"}])
    rows(folder / "good.jsonl", good)
    (folder / "folder").mkdir()
    (folder / "recipe.yaml").write_text("base: pocket:gpt\ndata: good.jsonl\nmetod: lora\n")
    (folder / "tab.yaml").write_text("base: pocket:gpt\n\tdata: x\n")
    (folder / "twice.yaml").write_text("base: pocket:gpt\ndata: good.jsonl\nbase: pocket:bert\n")
    fit = ["fit", "--base", "pocket:gpt", "--output", str(folder / "out")]
    label = ["fit", "--base", "pocket:bert", "--output", str(folder / "out")]
    return {
        "a recipe that is not there": (["fit", str(folder / "none.yaml")], ["none.yaml", "no such recipe"]),
        "no such folder of runs": (["runs", str(folder / "nowhere")], ["nowhere", "no such folder"]),
        "empty file": ([*fit, str(folder / "empty.jsonl")], ["empty.jsonl", "empty"]),
        "broken JSON": ([*fit, str(folder / "broken.jsonl")], ["broken.jsonl:7", "data.on_bad_row=skip"]),
        "not UTF-8": ([*fit, str(folder / "latin.jsonl")], ["latin.jsonl:31", "UTF-8"]),
        "unknown columns": ([*fit, str(folder / "columns.jsonl")], ["--columns", "ticket", "team"]),
        "missing file": ([*fit, str(folder / "god.jsonl")], ["god.jsonl", "good.jsonl"]),
        "roles": ([*fit, str(folder / "roles.jsonl")], ["roles.jsonl:31", "assistant"]),
        "overlong": ([*fit, str(folder / "long.jsonl")], ["long.jsonl:31", "data.on_overlong=truncate_prompt"]),
        "label that train lacks": (
            [*label, str(folder / "labels.jsonl"), f"data.test={folder / 'held.jsonl'}"],
            ["held.jsonl:1", "'c'"],
        ),
        "no such base": (["fit", str(folder / "good.jsonl"), "--base", str(folder / "nowhere")], ["nowhere"]),
        "a folder that is no base": (
            ["fit", str(folder / "good.jsonl"), "--base", str(folder / "folder")],
            ["config.json"],
        ),
        "a hub id offline": (["fit", str(folder / "good.jsonl"), "--base", "nobody/nothing"], ["HF_HUB_OFFLINE"]),
        "unknown key": (["fit", str(folder / "recipe.yaml")], ["metod", "method"]),
        "unknown override": ([*fit, str(folder / "good.jsonl"), "train.epoch=2"], ["train.epoch", "epochs"]),
        "bad value": ([*fit, str(folder / "good.jsonl"), "train.examples_per_batch=0"], ["train.examples_per_batch"]),
        "a key twice": (["fit", str(folder / "twice.yaml")], ["twice.yaml:3", "'base' stands twice"]),
        "not YAML": (["fit", str(folder / "tab.yaml")], ["tab.yaml:2"]),
        "unknown method": ([*fit, str(folder / "good.jsonl"), "method=lorra"], ["method", "lora"]),
        "unknown metric": (
            [*fit, str(folder / "good.jsonl"), "evaluate.primary=acuracy"],
            ["acuracy", "accuracy"],
        ),
        "method without a head": ([*fit, str(folder / "good.jsonl"), "method=head"], ["method", "head"]),
        "a pooled head on a causal base": (
            [*fit, str(folder / "labels.jsonl"), "method={name: head, head: mean_pool}"],
            ["method.head", "encoders"],
        ),
        "chat on an encoder": ([*label, str(folder / "good.jsonl")], ["objective", "encoder"]),
        "context exceeded": ([*fit, str(folder / "good.jsonl"), "data.max_length=99999"], ["data.max_length", "512"]),
        "two sources": ([*fit, str(folder / "good.jsonl"), "other.jsonl"], ["other.jsonl"]),
        "no data": (["fit", "--base", "pocket:gpt"], ["data"]),
        "usage": (["fit", "--nonsense"], ["nonsense"]),
        "no such run": (["show", str(folder / "nowhere")], ["nowhere", "run"]),
    }


NAMES = [
    "empty file", "broken JSON", "not UTF-8", "unknown columns", "missing file", "roles", "overlong",
    "label that train lacks", "no such base", "a folder that is no base", "a hub id offline", "unknown key",
    "unknown override", "bad value", "not YAML", "unknown method", "unknown metric", "method without a head",
    "a pooled head on a causal base", "chat on an encoder", "context exceeded", "two sources", "no data", "usage",
    "no such run", "a key twice", "a recipe that is not there", "no such folder of runs",
]  # fmt: skip


def test_every_bad_input_is_tried(tmp_path: Path) -> None:
    assert set(bad_inputs(tmp_path)) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_one_line_that_names_place_and_remedy(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words, said = bad_inputs(tmp_path)[name]
    code, out, err = call(capsys, *words)
    line = next(line for line in err.splitlines() if line.startswith("error: "))
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert not (tmp_path / "tailor-error.log").exists()
    assert [part for part in said if part not in line] == []


def test_errors_are_an_object_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--json", "fit", tmp_path / "no.jsonl", "--base", "pocket:gpt")
    error = json.loads(out)["error"]
    assert code == 2
    assert set(error) == {"code", "message", "where", "fix"}


def test_a_stop_is_answered_as_errors_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Lines, "advance", lambda *_: os.kill(os.getpid(), signal.SIGINT))  # after the first step
    data = rows(tmp_path / "a.jsonl", [chat(f"hello {i}") for i in range(30)])
    words = ["fit", data, *QUICK, "--output", tmp_path / "run", "--quiet"]
    code, out, _ = call(capsys, *words, "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"]) == (130, "interrupted")
    assert error["fix"] == f"tailor fit {tmp_path / 'run' / 'recipe.yaml'} --resume"
    code, out, err = call(capsys, *words, "--resume")
    assert (code, out) == (130, "")
    assert "stopped after step 2" in err


def test_every_bad_row_is_listed_at_once_and_skipping_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [json.dumps(chat(f"hello {i}")) for i in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join([good[0], "{", *good[1:9], '{"messages": 3}', *good[9:]]))
    code, _, err = call(capsys, "fit", tmp_path / "a.jsonl", *QUICK, "--output", tmp_path / "run")
    assert code == 2
    assert "a.jsonl:2" in err
    assert "a.jsonl:11" in err
    code, out, _ = call(capsys, "check", tmp_path / "a.jsonl", "--base", "pocket:gpt", "--json")
    counted = json.loads(out)["rows"]
    assert code == 1, "what check refuses would stop fit"
    assert counted["in"] == counted["used"] + sum(counted["refused"].values()) == 22


def test_an_existing_folder_is_refused_without_resume_even_an_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = rows(tmp_path / "a.jsonl", [chat(f"hello {i}") for i in range(30)])
    empty = tmp_path / "run"
    empty.mkdir()
    words = ["fit", data, *QUICK, "--output", empty, "--quiet", "--json"]
    code, out, _ = call(capsys, *words)
    assert (code, json.loads(out)["error"]["code"]) == (2, "exists")
    code, out, _ = call(capsys, *words, "--resume")
    assert (code, json.loads(out)["status"]) == (0, "done"), "an empty one is a start"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (["--method", "head"], "method"),
        (["--base", "pocket:bert", "--method", "head", "method.unfreeze=99"], "method.unfreeze"),
    ],
)
def test_a_fit_that_is_refused_leaves_no_folder(
    change: list[str], where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = rows(tmp_path / "labels.jsonl", [{"text": f"row {i} of many", "label": "ab"[i % 2]} for i in range(40)])
    talk = rows(tmp_path / "a.jsonl", [chat(f"hello {i}") for i in range(30)])
    data = labels if "pocket:bert" in change else talk
    words = ["fit", data, *QUICK[4:5], *(["--base", "pocket:gpt"] if "--base" not in change else []), *change]
    code, out, _ = call(capsys, *words, "--output", tmp_path / "run", "--json", "--quiet")
    assert (code, json.loads(out)["error"]["where"]) == (2, where)
    assert not (tmp_path / "run").exists()


def test_a_head_for_what_is_written_is_refused_by_a_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = rows(tmp_path / "a.jsonl", [chat(f"hello {i}") for i in range(30)])
    code, out, _ = call(capsys, "fit", data, "--base", "pocket:gpt", "--method", "head", "--dry-run", "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"]) == (2, "no_such_pair")
    assert "lora" in error["fix"]
    assert "head" not in error["fix"].partition(":")[2]


# --- a whole run ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run made through the command line."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    with pytest.raises(SystemExit) as end:
        main(["fit", "pocket:support", *QUICK, "--output", str(folder), "--quiet"])
    assert end.value.code == 0
    return folder


def test_a_run_leaves_what_the_contract_lists(run: Path) -> None:
    files = {"recipe.yaml", "lock.json", "data_report.json", "metrics.jsonl", "timing.jsonl", "evaluation.json",
             "proof.json", "report.html", "README.md", "summary.json"}  # fmt: skip
    assert files <= {path.name for path in run.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in (run / "model").iterdir()
    }
    assert json.loads((run / "model" / "adapter_config.json").read_text())["base_model_name_or_path"] == "pocket:gpt"
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "loss", "lr", "tokens", "supervised_tokens", "work_ratio"} == set(steps[0])
    page = (run / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_answers_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "show", run, "--json")
    summary = json.loads(out)
    assert code == 0
    assert summary["status"] == "done"
    assert summary["proof"]["passed"] is True
    assert {"steps", "tokens", "supervised_tokens", "work_ratio", "seconds", "tokens_per_second", "loss_first", "loss_last",
            "peak_memory_bytes", "baseline_bytes", "trainable_parameters", "total_parameters", "adapted_share"} <= set(
        summary["train"]
    )  # fmt: skip
    task = summary["evaluation"]["tasks"]["default"]
    assert {"n", "primary", "verdict", "detectable_difference", "opened", "baseline", "metrics"} <= set(task)
    assert set(summary["evaluation"]["forgetting"]) == {"base", "tuned", "delta"}


def test_a_finished_run_is_not_run_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "metrics.jsonl").stat().st_mtime_ns
    code, out, _ = call(capsys, "fit", run / "recipe.yaml", "--resume", "--json")
    assert code == 0
    assert json.loads(out)["status"] == "done"
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before
    code, _, err = call(capsys, "fit", run / "recipe.yaml", "--resume", "train.tokens_per_micro_batch=99")
    assert code == 0
    assert "is finished, and stays as it is" in err
    for word, told in (
        ("train.max_steps=9", "train.max_steps was 3, is 9 — give another output"),
        ("evaluate.samples=7", "tailor evaluate"),
        ("base=pocket:bert", "base.name was"),
    ):
        code, _, err = call(capsys, "fit", run / "recipe.yaml", "--resume", word)
        assert code == 2
        assert f"{run} was made by another recipe: " in err
        assert told in err
    code, _, err = call(capsys, "fit", run / "recipe.yaml")
    assert code == 2
    assert "--resume" in err


def test_the_saved_recipe_is_fully_resolved_and_runs_to_the_same_figures(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert "auto" not in json.dumps({**recipe, "output": ""})
    code, _, _ = call(capsys, "fit", run / "recipe.yaml", f"output={tmp_path / 'again'}", "--quiet")
    assert code == 0
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    weights = "model/adapter_model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (run / weights).read_bytes()


def test_requirements_decide_the_exit_code(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "evaluate", run, "--require", "rouge_l>=0", "--quiet")[0] == 0
    code, out, _ = call(capsys, "evaluate", run, "--require", "rouge_l>=1.01", "--json", "--quiet")
    assert code == 1
    assert json.loads(out)["tasks"]["default"]["opened"] >= 2, "each opening of the test split is counted"
    assert call(capsys, "evaluate", run, "--require", "nonsense>=1")[0] == 2


def test_generate_and_chat_answer(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, "generate", run, "--prompt", "My parcel is late.", "-n", "2", "--json")
    assert code == 0
    assert len(json.loads(out)["answers"]) == 2
    lines = iter(["My parcel is late.\n", "\n"])
    monkeypatch.setattr(sys.stdin, "readline", lambda: next(lines))
    code, out, _ = call(capsys, "chat", run, "--max-new-tokens", "8", "--json")
    assert code == 0
    assert set(json.loads(out)["turns"][0]) == {"user", "base", "tuned"}


@pytest.mark.parametrize("verb", ["bases", "doctor", "runs"])
def test_the_other_verbs_answer_in_words_and_in_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, verb)
    assert code == 0
    assert out.strip()
    code, out, _ = call(capsys, "--json", verb)
    assert code == 0
    assert isinstance(json.loads(out), dict)


def test_data_alone_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Base, method and settings are chosen and explained; offline that is an embedded base."""
    data = rows(tmp_path / "a.jsonl", [chat(f"hello number {i}", f"good day {i}") for i in range(40)])
    code, out, err = call(capsys, "fit", data, "--dry-run", "--json")
    plan = json.loads(out)
    assert code == 0
    assert plan["recipe"]["base"]["name"] == "pocket:gpt"
    assert plan["recipe"]["method"]["name"] == "lora"
    assert "licence" in err


def test_the_schema_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "fit", "--schema", "--json")
    assert code == 0
    assert {"FullOptions", "LoraOptions", "HeadOptions"} <= set(json.loads(out)["$defs"])


def test_what_is_cached_is_shown_and_cleared_by_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TAILOR_CACHE", str(tmp_path))
    for kind, size in (("frozen", 10), ("answers", 7)):
        (tmp_path / kind / "ab").mkdir(parents=True)
        (tmp_path / kind / "ab" / "x").write_bytes(b"0" * size)
    (tmp_path / "openings.jsonl").write_text("{}\n")
    kinds = json.loads(call(capsys, "cache", "--json")[1])["kinds"]
    assert {name: entry["bytes"] for name, entry in kinds.items() if entry["bytes"]} == {"frozen": 10, "answers": 7}
    assert list(json.loads(call(capsys, "cache", "frozen", "--json")[1])["kinds"]) == ["frozen"]
    assert json.loads(call(capsys, "cache", "--clear", "frozen", "--json")[1])["kinds"]["frozen"]["files"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers", "openings.jsonl"]
    code, _, err = call(capsys, "cache", "--clear", "frozenn")
    assert code == 2
    assert "frozen, pictures" in err
    assert "removed" in call(capsys, "cache", "--clear")[1]
    assert [path.name for path in tmp_path.iterdir()] == ["openings.jsonl"]
