"""Instructions rewritten by reflection on what went wrong (GEPA: Agrawal et al. 2025, arXiv 2507.19457), by `gepa`.

What the scorer says of an answer (`why`) is what is reflected on, so that a rule that no one wrote into the prompt can find
its way there.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tailor.core.contracts import Answer, Question
from tailor.core.errors import MissingExtra, RecipeError
from tailor.core.examples import Message
from tailor.core.prompts import Prompt
from tailor.engine.proposals import Candidate
from tailor.engine.search import Search

ROUNDS = 12
REFLECTED = 3
"""Rows of one reflection (gepa's own default)."""
TRAINING_ROWS = 64
PROPOSAL_TOKENS = 1024
PART = "instruction"


def rounds_of(options: Any) -> int:
    """Instructions that are rewritten by reflection at most."""
    if options.evolve == "auto":
        return 0 if options.proposer is None else ROUNDS
    return int(options.evolve)


def evolve(search: Search) -> None:
    """Let the best prompt's instruction evolve; what comes of it has answered all dev rows and is noted."""
    rounds = rounds_of(search.options)
    if not rounds:
        return
    try:
        from gepa.api import optimize
    except ImportError:
        raise MissingExtra("gepa", "prompt") from None
    rows = list(range(len(search.train)))
    random.Random(search.job.plan.seed).shuffle(rows)
    adapter = _Adapter(search, search.best.candidate.prompt)
    search.job.reporter.say(f"up to {rounds} instructions are rewritten by reflection")
    optimize(
        seed_candidate={PART: search.best.candidate.prompt.instruction},
        trainset=[("train", place) for place in rows[:TRAINING_ROWS]],
        valset=[("dev", place) for place in range(len(search.dev))],
        adapter=adapter,  # type: ignore[arg-type]
        reflection_lm=adapter.reflect,
        reflection_minibatch_size=min(REFLECTED, len(rows)),
        stop_callbacks=lambda state: state.i + 1 >= rounds or adapter.failure is not None,
        logger=_Silent(),
        seed=search.job.plan.seed,
        raise_on_exception=True,
    )
    if adapter.failure is not None:  # gepa goes on where a reflection fails
        raise adapter.failure


class _Silent:
    """gepa's own log; what matters of it is said by the search."""

    def log(self, message: str) -> None:
        """Nothing."""


class _Adapter:
    """The search as gepa sees it: a candidate is the text of an instruction, everything else of the prompt stays."""

    propose_new_texts = None

    def __init__(self, search: Search, prompt: Prompt) -> None:
        self.search, self.prompt = search, prompt
        self.proposer = search.space.proposer or search.space.generator
        self.failure: Exception | None = None

    def evaluate(
        self, batch: Sequence[tuple[str, int]], candidate: Mapping[str, str], capture_traces: bool = False
    ) -> Any:
        """Answers and scores of rows under a candidate; whole dev sets are noted as candidates of the search."""
        from gepa.core.adapter import EvaluationBatch

        prompt = replace(self.prompt, instruction=candidate[PART], prior={})
        answers = self._answers(batch, prompt)
        return EvaluationBatch(
            outputs=[answer.given for answer in answers],
            scores=self.search.metric.scores(answers).tolist(),
            trajectories=answers if capture_traces else None,
        )

    def _answers(self, batch: Sequence[tuple[str, int]], prompt: Prompt) -> list[Answer]:
        search = self.search
        if any(split == "train" for split, _ in batch):
            return search.ask(prompt, [search.train[place] for _, place in batch])
        tried = search.entry(Candidate(prompt, "reflection"))
        search.extend(tried, len(search.dev))
        search.note(tried)
        return [tried.answers[place] for _, place in batch]

    def make_reflective_dataset(
        self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: Sequence[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """What was asked, what was answered, and what the scorer says of it."""
        return {PART: [self._record(answer) for answer in eval_batch.trajectories]}

    def _record(self, answer: Answer) -> dict[str, Any]:
        why = self.search.metric.details(answer)
        right = f"The answer expected: {answer.expected}" if answer.expected is not None else ""
        feedback = "\n".join(part for part in (why, right) if part)
        return {"Inputs": _last_turn(answer), "Generated Outputs": str(answer.given), "Feedback": feedback}

    def reflect(self, prompt: str | list[dict[str, Any]]) -> str:
        """The proposer's answer to gepa's question for a better instruction."""
        try:
            return self._reflected(prompt)
        except Exception as error:
            self.failure = error
            raise

    def _reflected(self, prompt: str | list[dict[str, Any]]) -> str:
        self.search.check_budget(1)
        question = Question((Message("user", str(prompt)),), (), "")
        fits = getattr(self.proposer, "fits", None)
        if fits is not None and not fits(question):
            raise RecipeError(
                "what is to be reflected on does not fit the context of what reflects",
                where="method.proposer",
                fix="name a base with a longer context, or method.evolve=0",
            )
        text: str = self.proposer.reply([question], max_new_tokens=PROPOSAL_TOKENS)[0].text
        return text


def _last_turn(answer: Answer) -> str:
    """The row's own words, without the prompt around them."""
    return answer.prompt.rpartition("user: ")[2]
