"""`tailor generate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tailor import api
from tailor.cli.output import Answer, face
from tailor.core.errors import RecipeError


def generate(
    model: Annotated[str, typer.Argument(help="Run folder, base, URL#MODEL or a YAML file.")],
    prompt: Annotated[str | None, typer.Option(help="What to answer, or to label.")] = None,
    data: Annotated[str | None, typer.Option(help="Rows to answer or label instead, as the run's own.")] = None,
    out: Annotated[Path | None, typer.Option(help="With --data: where the answers go (.jsonl).")] = None,
    number: Annotated[int, typer.Option("-n", min=1, help="How many answers; beyond the first they are sampled.")] = 1,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 256,
    output: Annotated[Path | None, typer.Option(help="Where pictures are written; RUN/generated if left out.")] = None,
) -> Answer:
    """One prompt, or every row of a file: answered in text or pictures, or labelled."""
    if (prompt is None) == (data is None) or (data is None) != (out is None):
        raise RecipeError(
            "there is one prompt, or a file of rows and one for the answers",
            where="generate",
            fix="--prompt TEXT, or --data FILE --out ANSWERS.jsonl",
            code="usage",
        )
    if data is not None and out is not None:
        count = api.answer_rows(model, data, out=out, max_new_tokens=max_new_tokens, reporter=face.reporter)
        return Answer({"answers": count, "out": str(out)}, f"{count} answers: {out}")
    assert prompt is not None
    answers = api.generate(model, prompt, number=number, max_new_tokens=max_new_tokens, output=output)
    return Answer({"prompt": prompt, "answers": answers}, "\n---\n".join(map(_shown, answers)))


def _shown(answer: Any) -> str:
    """Text as it is; a label with how sure the model is."""
    if not isinstance(answer, dict):
        return str(answer)
    sure = answer["probability"]
    if isinstance(sure, dict):
        return ", ".join(f"{name} ({100 * share:.1f} %)" for name, share in sure.items())
    return str(answer["answer"]) + (f" ({100 * sure:.1f} %)" if sure is not None else "")
