"""What others rely on: public names, signatures, and pages that must agree with the code."""

import inspect
import re
import runpy
from pathlib import Path

import pytest

import tailor
from tailor.cli.main import VERBS

ROOT = Path(__file__).parents[1]

SIGNATURES = {
    "fit": "(what=None, *, resume=False, reporter=None, **parts)",
    "check": "(data, *, base=None, test=None, columns=None, fix=None, redact=False, html=None, reporter=None)",
    "compare": ("(what, *, methods=None, budget=None, seeds=3, margin=2.0, output=None, resume=False, reporter=None)"),
    "evaluate": "(model, *, data=None, against=None, margin=None, overrides=(), reporter=None)",
    "prove": "(model, *, base=None, served=None, reporter=None)",
    "load": "(path)",
    "plan": "(data, *, base=None, memory=None, gpu=None, recipe=None, reporter=None, **aim)",
    "record": "(model, *, data, out, reporter=None)",
    "render": "(base, messages, *, tools=())",
}


def shape(function: object) -> str:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    bare = [value.replace(annotation=inspect.Parameter.empty) for value in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def test_the_public_names_are_sorted_and_complete() -> None:
    assert list(tailor.__all__) == sorted(tailor.__all__)
    assert {*SIGNATURES, "Run", "TailorError", "__version__"} == set(tailor.__all__)
    assert all(getattr(tailor, name) is not None for name in tailor.__all__)


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures_are_pinned(name: str) -> None:
    assert shape(getattr(tailor, name)) == SIGNATURES[name]


def test_the_command_line_is_pinned() -> None:
    """A new knob goes into the recipe, not into a flag."""
    flags = {verb.__name__: list(inspect.signature(verb).parameters) for group in VERBS.values() for verb in group}
    assert flags == {
        "fit": [
            "what",
            "base",
            "data",
            "method",
            "columns",
            "output",
            "resume",
            "dry_run",
            "verbose",
            "yes",
            "print_schema",
        ],
        "check": ["data", "base", "test", "columns", "fix", "redact", "html", "show"],
        "plan": ["data", "base", "memory", "gpu", "goal", "served", "text", "columns", "recipe"],
        "chat": ["model", "max_new_tokens"],
        "evaluate": ["model", "overrides", "data", "against", "margin", "require"],
        "prove": ["model", "base", "served"],
        "demo": ["output"],
        "compare": ["recipe", "methods", "budget", "seeds", "margin", "output", "resume"],
        "review": ["run", "port"],
        "generate": ["model", "prompt", "data", "out", "number", "max_new_tokens", "output"],
        "record": ["model", "data", "out"],
        "bases": ["fits"],
        "runs": ["folder"],
        "show": ["run"],
        "doctor": [],
        "cache": ["kind", "clear"],
    }


def test_render_shows_exactly_what_is_trained() -> None:
    segments = tailor.render(
        "pocket:gpt", [{"role": "user", "content": "Hello there."}, {"role": "assistant", "content": "Good day."}]
    )
    assert "".join(part.text for part in segments if part.trained) == "Good day.<|im_end|>"
    assert all(part.token_ids for part in segments)


def test_the_reference_page_is_what_the_code_says() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "build.py"))["reference"]()
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == page, "run `make docs`"


def test_every_command_in_the_readme_exists() -> None:
    verbs = {verb.__name__ for group in VERBS.values() for verb in group}
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^tailor (\w+)", page, re.MULTILINE)) | set(re.findall(r"`tailor (\w+)", page))
    assert named <= verbs
    assert {"fit", "check", "chat", "prove"} <= named


def test_the_recipe_in_the_readme_is_valid(tmp_path: Path) -> None:
    from tailor.recipe.recipe import load

    page = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "recipe.yaml").write_text(block)
        assert load(tmp_path / "recipe.yaml").base.name == "pocket:gpt"


@pytest.mark.slow
def test_the_python_example_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    example = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "import tailor" in block)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "support.jsonl").write_text((ROOT / "tailor/bases/pocket/data/support.jsonl").read_text())
    names: dict[str, object] = {}
    exec(example, names)
    assert names["run"].proof["passed"]  # type: ignore[attr-defined]
    assert names["run"].evaluation["tasks"]["default"]["verdict"] == "better"  # type: ignore[attr-defined]
