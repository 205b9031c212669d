"""A prompt's requests to a server: are they answered as they were when the prompt was chosen, or as if it were not there?"""

from collections.abc import Sequence
from typing import Any

from tailor.core.contracts import Question
from tailor.core.errors import TailorError
from tailor.core.runs import RunFolder
from tailor.engine.search import SCORED
from tailor.evaluation.served import ENOUGH, Server
from tailor.evaluation.written import first_that_fits
from tailor.recipe.base import EndpointOptions, api_root
from tailor.recipe.recipe import Recipe, load
from tailor.verbs.own_requests import as_question
from tailor.verbs.talk import Model, model_of
from tailor.wire.generator import ApiGenerator

WANTED = 8
"""Rows that are compared at least."""
LIMIT = 64
"""Tokens of an answer where the run does not say."""


def judge_served_prompt(run: RunFolder, url: str) -> tuple[dict[str, Any], list[str]]:
    """The server's greedy answers to the requests that were scored, held against those of the run's own base.

    Each row is asked without the prompt too: a server that drops the system's words, or turns that are shown to it, answers
    both alike. What was asked of a base behind an API comes from the cache.

    Returns:
        Counts, and in words what is wrong.

    Raises:
        TailorError: base or server cannot be had, or too few rows can be asked.
    """
    recipe, model = load(run.recipe), model_of(str(run.path))
    raw = [as_question(row["question"]) for row in run.read(SCORED)["rows"]]
    pairs = [(one, first_that_fits(model.generator, model.objective.posed(one))) for one in raw]
    bare, posed = [one for one, two in pairs if two is not None], [two for _, two in pairs if two is not None]
    if len(posed) < WANTED:
        raise TailorError(
            f"{len(posed)} rows can be asked, and {WANTED} are wanted to tell whom a server agrees with",
            where=str(run.path / SCORED),
            fix="search on more dev rows",
        )
    asked = recipe.evaluate.max_new_tokens
    limit = asked if isinstance(asked, int) else LIMIT
    server = _server(url, recipe, model)
    wanted = _texts(model.generator, posed, limit)
    given, without = _texts(server, posed, limit), _texts(server, bare, limit)
    return _verdict(server.options, wanted, given, without)


def _server(url: str, recipe: Recipe, model: Model) -> ApiGenerator:
    """What answers there, asked as the run's base is asked; nothing comes from a cache, for another may answer today."""
    own = recipe.base.endpoint
    called = own.model if own else recipe.base.name
    names = {called, called.rpartition("/")[2], model.base.name}
    root = api_root(url)
    how = own.model_dump(include={"protocol", "request", "timeout", "concurrency"}) if own else {}
    if own is not None and own.url == root:
        how["api_key_env"] = own.api_key_env
    return ApiGenerator.of(
        EndpointOptions(url=root, model=Server.at(url, sorted(names)).model, cache=False, retries=1, **how)
    )


def _texts(generator: Any, questions: Sequence[Question], limit: int) -> list[str]:
    return [" ".join(reply.text.split()) for reply in generator.reply(questions, max_new_tokens=limit)]


def _verdict(
    server: EndpointOptions, wanted: Sequence[str], given: Sequence[str], without: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Whom the server agrees with."""
    count, pairs = len(wanted), list(zip(wanted, given, without, strict=True))
    equal = sum(one == two for one, two, _ in pairs)
    # Where the prompt changes the answer, and the server's own is the one that it gives without it.
    ignored = sum(two == three != one for one, two, three in pairs)
    telling = sum(one != three for one, _, three in pairs)
    answer = {
        "url": server.url,
        "model": server.model,
        "prompts": count,
        "equal_to_scored": equal,
        "equal_to_no_prompt": ignored,
        "changed_by_the_prompt": telling,
    }
    if not telling:
        told = "the prompt changes none of these answers, so it cannot be told whether the server follows it"
        return answer, [told]
    if equal >= ENOUGH * count and ignored <= (1 - ENOUGH) * telling:
        return answer, []
    if ignored > (telling - ignored) / 2:
        return answer, [
            f"the server ignores the prompt: {ignored} of the {telling} answers that it changes are those without it"
        ]
    doubt = "it renders another template, or serves another model"
    return answer, [f"the server answers only {equal} of {count} requests as they were answered when scored: {doubt}"]
