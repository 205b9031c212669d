"""`tailor demo`: the whole line on embedded base and data, in under two minutes on two cores."""

from pathlib import Path
from typing import Annotated

import typer

from tailor import api
from tailor.cli.fit import summary_answer
from tailor.cli.output import Answer, face

BASE, DATA, METHOD = "pocket:gpt", "pocket:support", "lora"
SHORT = ["train.epochs=3"]
"""Enough to see it learn; left to itself a run this small would take nine."""


def demo(
    output: Annotated[str | None, typer.Option(help="The run folder; a new one below runs/ by default.")] = None,
) -> Answer:
    """Tune an embedded toy model on embedded data: the real pipeline, offline."""
    face.reporter.say("toy model, real pipeline: a small language model learns one company's support policy")
    recipe = api.make_recipe(
        base=BASE, data=DATA, method=METHOD, output=output, overrides=SHORT, reporter=face.reporter
    )
    answer = summary_answer(api.fit(recipe, reporter=face.reporter).summary)
    run = Path(recipe.output)
    closing = f"try it:      tailor chat {run}\nyour own:    tailor fit YOUR_FILE.jsonl"
    return Answer(answer.values, f"{answer.text}\n\n{closing}", answer.code)
