"""Write docs/reference.md from the code: every recipe key with its default and meaning, every metric, every verb."""

from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from tailor.cli.main import VERBS
from tailor.core.catalogue import data_sets
from tailor.evaluation.scorers import METRICS
from tailor.evaluation.wording import named
from tailor.recipe.base import BaseOptions, EndpointOptions
from tailor.recipe.data import DataOptions
from tailor.recipe.evaluate import EvaluateOptions, JudgeOptions
from tailor.recipe.methods import METHODS
from tailor.recipe.objectives import OBJECTIVES, PriorOptions
from tailor.recipe.train import TrainOptions

TARGET = Path(__file__).with_name("reference.md")


def keys(model: type[BaseModel], prefix: str) -> list[str]:
    """A table row per key; groups are spelled out below themselves."""
    rows = []
    for name, field in model.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel):
            rows += keys(type(default), f"{prefix}{name}.")
            continue
        shown = "required" if default is PydanticUndefined else f"`{str(default).replace('None', 'null')}`"
        rows.append(f"| `{prefix}{name}` | {shown} | {field.description or ''} |")
    return rows


def section(title: str, rows: list[str], headings: str) -> list[str]:
    """A heading and a table."""
    rule = "|" + "---|" * headings.count("|")
    return [f"## {title}", "", f"| {headings}", rule, *rows, ""]


def reference() -> str:
    """The page."""
    lines = ["# Reference", "", "Written by `make docs` from the code; the tests hold it to the code.", ""]
    verbs = [f"| `tailor {verb.__name__}` | {verb.__doc__} |" for group in VERBS.values() for verb in group]
    lines += section("Commands", verbs, "command | does |")
    head = "key | default | meaning |"
    groups = {
        "base": BaseOptions,
        "base.endpoint": EndpointOptions,
        "data": DataOptions,
        "train": TrainOptions,
        "evaluate": EvaluateOptions,
        "evaluate.judge": JudgeOptions,
    }
    for name, model in groups.items():
        lines += section(f"`{name}`", keys(model, f"{name}."), head)
    for axis, table in (("method", METHODS), ("objective", OBJECTIVES)):
        for name, options in table.items():
            lines += section(f"`{axis}: {name}`", keys(options, f"{axis}."), head)
    lines += section("`objective.prior`", keys(PriorOptions, "objective.prior."), head)
    metrics = [f"| `{name}` | {named(name)[0]} | {', '.join(kinds)} |" for name, (kinds, _) in METRICS.items()]
    extra = ["| `regex:PATTERN` | answers that match | text |", "| `max_words:N` | answers of at most N words | text |"]
    extra.append("| `one & other` | shares that are to hold together, multiplied row by row | as its parts |")
    own = ["| `file.py:function` | your own `def score(row, answer)` | any |"]
    lines += section("Metrics", [*metrics, *extra, *own], "name | what | answers |")
    sets = [f"| `{entry['name']}` | {entry['rows']} | {entry['task']} |" for entry in data_sets()]
    lines += section("Embedded data", sets, "name | rows | teaches |")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
