"""`tailor fit`."""

import sys
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import typer
import yaml

from tailor import api
from tailor.cli.dry_run import dry_answer
from tailor.cli.options import Base, Columns, parse_columns
from tailor.cli.output import Answer, face
from tailor.core.errors import RecipeError
from tailor.core.runs import RunFolder
from tailor.evaluation.wording import figure, verdict_sentence
from tailor.recipe.deciding import finished
from tailor.recipe.many import AnyRecipe
from tailor.recipe.recipe import read_yaml, schema

SHOWN = 160
"""Characters of a prompt on the last screen."""


def fit(
    what: Annotated[
        list[str] | None, typer.Argument(help="A recipe or any data file, then KEY=VALUE overrides.")
    ] = None,
    base: Base = None,
    data: Annotated[str | None, typer.Option(help="What to learn from.")] = None,
    method: Annotated[
        str | None, typer.Option(help="lora, full, head, adapter, prefix, soft_prompt, ia3 or prompt.")
    ] = None,
    columns: Columns = None,
    output: Annotated[str | None, typer.Option(help="The run folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show recipe, data and plan; train nothing.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="With --dry-run: the whole recipe, report and plan.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Agree to a download.")] = False,
    print_schema: Annotated[bool, typer.Option("--schema", help="Print the recipe's JSON schema.")] = False,
) -> Answer:
    """Tune a base on your data; measure, prove and report."""
    if print_schema:
        return _json(schema())
    words = what or []
    sources = [word for word in words if "=" not in word]
    if len(sources) > 1:
        raise RecipeError(
            f"{sources[1]!r} is one too many: fit takes one recipe or data file", fix="write KEY=VALUE overrides"
        )
    overrides = [word for word in words if "=" in word]
    if resume and output and not sources and not data:
        sources = [str(RunFolder.existing(Path(output)).recipe)]
    parts: dict[str, Any] = {"base": base, "data": data, "method": method, "output": output}
    recipe = api.make_recipe(
        sources[0] if sources else None,
        **parts,
        columns=parse_columns(columns),
        overrides=overrides,
        resume=resume,
        reporter=face.reporter,
    )
    if resume and (done := finished(RunFolder(Path(recipe.output)), recipe, face.reporter)) is not None:
        return summary_answer(done)
    if dry_run:
        return dry_answer(api.plan_fit(recipe), verbose)
    _agree(recipe, chosen=base is None and not _names_base(sources, overrides), yes=yes)
    return summary_answer(api.fit(recipe, resume=resume, reporter=face.reporter).summary)


def _json(values: Any) -> Answer:
    return Answer(values, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip())


def _names_base(sources: list[str], overrides: list[str]) -> bool:
    """Whether the user's own words, or their recipe, say which base to take."""
    in_file = bool(sources) and Path(sources[0]).suffix in api.RECIPES and "base" in read_yaml(Path(sources[0]))
    return in_file or any(word.startswith(("base=", "base.")) for word in overrides)


def _agree(recipe: AnyRecipe, *, chosen: bool, yes: bool) -> None:
    """A base that was chosen for the user and must be downloaded is confirmed once; nothing else asks anything."""
    if not chosen or yes or not api.needs_download(recipe):
        return
    if not sys.stdin.isatty():
        raise RecipeError(
            f"{recipe.base.name} would be downloaded", where="base", fix="add --yes, or name --base", code="confirm"
        )
    typer.confirm(f"Download {recipe.base.name} and begin?", abort=True, err=True)


def _trained(train: dict[str, Any]) -> str:
    speed = (
        f"{train['seconds']:.1f} s · {train['tokens_per_second']:,.0f} tokens/s · work ratio {train['work_ratio']:.2f}"
    )
    share = f"{train['trainable_parameters']:,} of {train['total_parameters']:,} parameters"
    return f"trained {train['steps']} steps in {speed} · {share}"


def _searched(train: dict[str, Any]) -> str:
    """What a search for a prompt did, and what it found on dev."""
    cost = f", cost {train['cost']:.4g}" if train["cost"] else ""
    figures = (figure(train["dev_metric"], train[name]) for name in ("dev_bare", "dev_best"))
    found = f"dev {' → '.join(figures)} with: {train['chosen']}"
    return f"tried {train['steps']} prompts in {train['seconds']:.1f} s · {train['calls']:,} answers{cost} · {found}"


def _prompt(found: dict[str, Any]) -> str:
    """The prompt that was found, shortened, and where all of it stands."""
    count, said = found["demonstrations"], found["instruction"] or found["input"]
    shown = f" + {count} demonstration{'' if count == 1 else 's'}" if count else ""
    return f"prompt: {shorten(said, SHOWN, placeholder=' …')!r}{shown} ({found['page']})"


def _mebibytes(train: dict[str, Any]) -> str:
    return f"{train['peak_memory_bytes'] / 2**20:,.0f}"


def summary_answer(summary: dict[str, Any]) -> Answer:
    """The first screen of a finished run, in words."""
    lines = []
    for name, task in summary["evaluation"].get("tasks", {}).items():
        lines.append(("" if name == "default" else f"{name}: ") + verdict_sentence(task))
        lines.append(f"verdict: {task['verdict'].replace('_', ' ')}")
    if not lines:
        lines.append("no test split, so nothing was measured")
    forgetting = summary["evaluation"].get("forgetting")
    if forgetting:
        lines.append(f"forgetting: loss on general text {forgetting['base']:.3f} → {forgetting['tuned']:.3f}")
    train, proof = summary["train"], summary["proof"]
    lines.append(f"{_searched(train) if 'calls' in train else _trained(train)} · peak {_mebibytes(train)} MiB")
    if "prompt" in summary:
        lines.append(_prompt(summary["prompt"]))
    lines.append(f"proof: {'passed' if proof['passed'] else 'FAILED: ' + '; '.join(proof['problems'])}")
    lines.append(f"run: {summary['run']} (open report.html; try it: tailor generate {summary['run']} --prompt …)")
    return Answer(summary, "\n".join(lines), 0 if proof["passed"] else 1)
