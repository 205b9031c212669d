"""Options that several verbs share."""

from typing import Annotated

import typer

from tailor.core.errors import RecipeError

Base = Annotated[
    str | None, typer.Option("--base", help="Hub id, local folder, run folder, or pocket:gpt, pocket:bert.")
]
Columns = Annotated[str | None, typer.Option("--columns", help="role=column,… e.g. input=Ticket,output=Team.")]


def parse_columns(text: str | None) -> dict[str, str]:
    """`input=Ticket,output=Team` as a mapping."""
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    for role, sign, column in pairs:
        if not sign or not role.strip() or not column.strip():
            raise RecipeError(
                f"{text!r} is no column map", where="--columns", fix="e.g. --columns input=Ticket,output=Team"
            )
    return {role.strip(): column.strip() for role, _, column in pairs}
