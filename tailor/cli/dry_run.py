"""What `tailor fit --dry-run` shows: a page of a dozen lines, and on demand everything behind it."""

from collections.abc import Mapping
from typing import Any

import yaml

from tailor.cli.output import Answer
from tailor.evaluation.wording import named

HIDDEN = "--verbose shows the whole recipe, data report and plan; --json has them too"


def dry_answer(outlook: Mapping[str, Any], verbose: bool) -> Answer:
    """What would be done, in words; with `verbose` the values after it."""
    recipe = outlook["recipe"]
    lines = [f"base: {recipe['base']['name']}"]
    if "download" in outlook:
        lines.append(f"download: {_download(outlook['download'])}; with --yes, fit fetches it and plans the rest")
    parts = outlook.get("stages") or outlook.get("tasks")
    for name, part in parts.items() if parts else [("", outlook)]:
        lines += ["", f"{name}:"] if name else []
        lines += _part(part, _own(recipe, name))
    lines += [*([""] if parts else []), f"output: {recipe['output']}", HIDDEN]
    whole = yaml.safe_dump(dict(outlook), sort_keys=False, allow_unicode=True).rstrip()
    return Answer(outlook, "\n".join([*lines[:-1], "", whole] if verbose else lines))


def _own(recipe: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One stage's or task's own keys, over those that hold for all."""
    if "tasks" in recipe:
        return {**recipe, **recipe["tasks"][name]}
    if "stages" in recipe:
        return {**recipe, **recipe["stages"][int(name.partition("-")[0]) - 1]}
    return recipe


def _part(outlook: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    report, plan, train = outlook.get("data_report"), outlook.get("plan"), recipe.get("train", {})
    lines = [f"data: {_data(recipe['data'])}"]
    if report is not None:
        splits = ", ".join(f"{count} {name}" for name, count in report["splits"].items())
        lines += [f"rows: {splits} ({report['form']} data)", f"objective: {report['objective']}"]
    lines.append(f"method: {_name(recipe.get('method', 'lora'))}")
    if plan is None:
        return lines
    if "steps" in plan:
        rate = f", learning rate {train['learning_rate']:g}" if isinstance(train["learning_rate"], float) else ""
        batch = train["examples_per_batch"]
        lines.append(f"training: {plan['steps']:,} steps of {batch} examples, {plan['tokens']:,} tokens{rate}")
    else:
        lines.append(f"search: up to {plan['candidates']} prompts")
    lines.append(f"on: {plan['device']}, {plan['precision']}: {plan['reason']}")
    lines.append(f"measured by: {_measured(recipe.get('evaluate', {}), report)}")
    return lines + _warned(report)


def _data(data: Any) -> str:
    source = data["train"] if isinstance(data, Mapping) else data
    return source if isinstance(source, str) else ", ".join(source)


def _name(value: Any) -> str:
    return str(value["name"] if isinstance(value, Mapping) else value)


def _measured(evaluate: Mapping[str, Any], report: Mapping[str, Any] | None) -> str:
    if report is not None and not report["splits"]["test"]:
        return "nothing, since no row is held back for a test"
    primary = str(evaluate.get("primary", "auto"))
    rows = evaluate.get("samples")
    most = f", at most {rows} answers" if isinstance(rows, int) else ""
    return f"{'the metric that suits the answers' if primary == 'auto' else named(primary)[0]} on the test rows{most}"


def _warned(report: Mapping[str, Any] | None) -> list[str]:
    found = [one["message"] for one in (report or {}).get("problems", ()) if one["severity"] == "warning"]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return [f"warning: {found[0]}{more}"] if found else []


def _download(download: Mapping[str, Any]) -> str:
    size = download["bytes"]
    return f"{download['base']}" + (f", {size / 1e6:,.0f} MB" if size else ", of a size that only the hub knows")
