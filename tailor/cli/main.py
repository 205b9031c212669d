"""The command line: verbs to functions, errors to one line, answers to JSON or to a page of text."""

import importlib.metadata
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import typer

from tailor.cli.bases import bases
from tailor.cli.cache import cache
from tailor.cli.chat import chat
from tailor.cli.check import check
from tailor.cli.compare import compare
from tailor.cli.demo import demo
from tailor.cli.doctor import doctor
from tailor.cli.evaluate import evaluate
from tailor.cli.fit import fit
from tailor.cli.generate import generate
from tailor.cli.output import Answer, Face, face
from tailor.cli.plan import plan
from tailor.cli.prove import prove
from tailor.cli.record import record
from tailor.cli.review import review
from tailor.cli.runs import runs, show
from tailor.core.errors import Interrupted, TailorError

HELP = """Make your model from a base foundation model: measured to be better, with proof.

Start with `tailor demo`, then `tailor fit YOUR_FILE`. Every command takes --json and --quiet."""

VERBS: dict[str, list[Callable[..., Answer]]] = {
    "Start here": [fit, check, plan, chat, evaluate, prove, demo],
    "More": [compare, review, generate, record, bases, runs, show, cache, doctor],
}


def build() -> typer.Typer:
    """The app: the verbs most people need first, then the rest."""
    app = typer.Typer(
        help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
    )
    app.callback()(_root)
    for panel, functions in VERBS.items():
        for function in functions:
            app.command(function.__name__, rich_help_panel=panel)(function)
    return app


def _version(asked: bool) -> None:
    if asked:
        number = importlib.metadata.version("tailor")
        face.show(Answer({"version": number}, f"tailor {number}"))
        raise typer.Exit


def _root(
    json: bool = typer.Option(False, "--json", help="One JSON document on stdout."),
    quiet: bool = typer.Option(False, "--quiet", help="No progress and no messages."),
    version: bool = typer.Option(False, "--version", help="Which Tailor this is.", callback=_version, is_eager=True),
) -> None:
    pass


_root.__doc__ = HELP


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code that the outcome has."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    face.configure(json="--json" in words, quiet="--quiet" in words)
    words = [word for word in words if word not in ("--json", "--quiet")]
    sys.exit(_run(words or ["--help"], face))


def _run(words: list[str], face: Face) -> int:
    try:
        answer = build()(words, standalone_mode=False)
    except TailorError as error:
        return face.fail(error)
    except Interrupted as stopped:
        return face.stop(stopped)
    except (KeyboardInterrupt, typer.Abort):
        return face.stop(Interrupted())
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        return 0
    except Exception as error:
        return face.fail(_explained(error))
    return face.show(answer) if isinstance(answer, Answer) else int(answer or 0)


def _explained(error: Exception) -> TailorError:
    """Wrong usage as typer words it; anything else is a bug of ours, its traceback kept in a file."""
    message = getattr(error, "format_message", None)
    if message is not None:
        return TailorError(message().rstrip("."), fix="tailor --help", code="usage")
    log = Path.cwd() / "tailor-error.log"
    try:
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        where = str(log)
    except OSError:
        where = ""
    return TailorError(
        f"something went wrong inside Tailor: {type(error).__name__}: {error}",
        where=where,
        fix="please report it with that file",
        code="internal",
    )
