"""The search for a prompt: candidates answer dev rows, race, and the best is kept.

A race is successive halving (Jamieson & Talwalkar 2016) over ever more dev rows. All candidates answer the same rows, so
each is held against the leader by the paired test that evaluation uses, and one that is shown to be worse leaves early.
Whatever happens, the best on all rows so far is known, so that stopping at any time leaves a prompt.
"""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tailor.core.contracts import Answer, Metric
from tailor.core.errors import BudgetSpent, DataError, Interrupted, RecipeError
from tailor.core.prompts import Demonstration, Prompt
from tailor.core.runs import RunFolder, write_text
from tailor.engine.guard import StopRequest
from tailor.engine.logs import Logs
from tailor.engine.loop import Job
from tailor.engine.proposals import POOL, Candidate, Demonstrations
from tailor.engine.space import FOLDER
from tailor.evaluation.choosing import deciding
from tailor.evaluation.compare import compare
from tailor.evaluation.generators import cost_of
from tailor.evaluation.scorers import LIKELIHOODS
from tailor.evaluation.written import answers_to, asked_of

BEST = f"{FOLDER}/best.json"
SCORED = f"{FOLDER}/scored.json"
BOOTSTRAPPED = 64
"""Training rows that the base is asked about to find those it gets right."""
FEWEST = 8
"""Dev rows of the first look at a candidate."""
FINALISTS = 3
RESAMPLES = 400
PROOF_ROWS = 16
EMPTY = ("N/A", "", "[MASK]")
"""Inputs that ask nothing (Zhao et al. 2021)."""


@dataclass
class Tried:
    """A candidate and its answers so far, by the number of the dev row."""

    candidate: Candidate
    answers: dict[int, Answer] = field(default_factory=dict)


class Search:
    """One sitting; answers that an earlier one paid for come from the file."""

    def __init__(self, job: Job, stop: StopRequest) -> None:
        assert job.space is not None, "compose gives a search its space"
        self.job, self.stop, self.space, self.begun = job, stop, job.space, time.perf_counter()
        self.objective, self.options = job.objective.under(None), job.space.options
        self.rng = random.Random(job.plan.seed)
        self.train, self.dev = self.space.examples["train"], list(self.space.examples["dev"])
        if len(self.dev) < FEWEST:
            raise DataError(
                f"a prompt is chosen on dev rows, and there are {len(self.dev)} of them",
                where="data.dev",
                fix="data.dev=0.2 (or a file), or more rows",
            )
        self.rng.shuffle(self.dev)
        self.dev = self.dev[: self.options.rows]
        self.metric = self._metric()
        self.gain = 1 if self.metric.better == "higher" else -1
        self.limit: int = self.space.evaluate.max_new_tokens
        self.tried: dict[str, Tried] = {}
        self.ended_by: str | None = None
        self.best = Tried(Candidate(self._bare(), "bare"))
        self.bare = self.best
        self.folder = RunFolder(job.folder)
        (job.folder / FOLDER).mkdir(exist_ok=True)
        self.logs = Logs(job.folder, {})

    def _bare(self) -> Prompt:
        own, before = next(iter(self.options.instructions), ""), self.job.objective.prompt
        return before if before is not None and not own else self.objective.bare(own) or Prompt()

    def _metric(self) -> Metric:
        expected = [
            Answer(example.id, row, "", self.objective.questions(example)[0].reference, None)
            for example, row in self.dev
        ]
        metric = deciding(self.space.evaluate, self.objective, expected)
        if metric.name in LIKELIHOODS:
            raise RecipeError(
                f"a prompt is chosen by its answers, and {metric.name} looks at none", where="evaluate.primary"
            )
        return metric

    # --- asking -----------------------------------------------------------------------------------------------------

    def ask(self, prompt: Prompt, rows: Sequence[tuple[Any, Any]]) -> list[Answer]:
        """Answers to rows under a prompt; raises where the run is to stop or the budget is used up."""
        if self.stop.asked:
            raise Interrupted(
                f"interrupted after {len(self.tried)} prompts; the best so far is kept, and --resume goes on from here"
            )
        self.check_budget(len(rows))
        objective = self.objective.under(prompt)
        asked = [asked_of(self.space.generator, objective, example, row) for example, row in rows]
        return answers_to(self.space.generator, objective, asked, self.limit)

    def check_budget(self, more: int) -> None:
        """Raise `BudgetSpent` where so many more answers would go beyond the calls there are, or the time is used up.

        The wire keeps to the cost.
        """
        longest, taken = self.options.max_seconds, time.perf_counter() - self.begun
        if longest is not None and taken > longest and len(self.bare.answers) == len(self.dev):
            raise BudgetSpent(f"{taken:.0f} of {longest:.0f} seconds are used", "method.max_seconds", "raise it")
        made, most = self.cost()["calls"], self.options.max_calls
        if most is not None and made + more > most:
            message = f"{made:.0f} of {most} calls are made, and the next look at dev takes {more}"
            raise BudgetSpent(message, "method.max_calls", "raise it, or lower method.rows")

    def cost(self) -> dict[str, float]:
        """What has been paid, the proposer's part included."""
        generators = [self.space.generator, *([self.space.proposer] if self.space.proposer else [])]
        return cost_of(*generators)

    # --- the race ---------------------------------------------------------------------------------------------------

    def race(self, candidates: Sequence[Candidate]) -> list[Tried]:
        """Successive halving; returns those that answered every dev row, the best first."""
        runners = list({one.prompt.digest(): self.entry(one) for one in candidates}.values())
        runners = [one for one in runners if len(one.answers) < len(self.dev)]
        sizes = self._sizes(len(runners))
        total, left = 0, len(runners)
        for _ in sizes:
            total, left = total + left, min(left, max(FINALISTS, left // 2))
        with self.job.reporter.progress("searching", total) as progress:
            for size in sizes:
                for one in runners:
                    self.extend(one, size)
                    if size == len(self.dev):
                        self.note(one)
                    progress.advance(self._said())
                runners = self._kept(runners, size)
        return self.ranked([one for one in runners if len(one.answers) == len(self.dev)])

    def _sizes(self, runners: int) -> list[int]:
        """Dev rows of each round, doubling, so that the last one's candidates are few."""
        sizes, left = [len(self.dev)], runners
        while left > FINALISTS and sizes[0] // 2 >= FEWEST:
            sizes.insert(0, sizes[0] // 2)
            left //= 2
        return sizes

    def entry(self, candidate: Candidate) -> Tried:
        """The candidate's place in the table of all."""
        return self.tried.setdefault(candidate.prompt.digest(), Tried(candidate))

    def extend(self, one: Tried, size: int) -> None:
        """Have a candidate answer the first `size` dev rows, as far as it has not."""
        self.tried.setdefault(one.candidate.prompt.digest(), one)
        places = [place for place in range(size) if place not in one.answers]
        answers = self.ask(one.candidate.prompt, [self.dev[place] for place in places]) if places else []
        one.answers |= dict(zip(places, answers, strict=True))

    def _kept(self, runners: list[Tried], size: int) -> list[Tried]:
        """The better half, without those that are shown to be worse than the leader."""
        if size == len(self.dev):
            return runners
        ordered = self.ranked(runners, size)[: max(FINALISTS, len(runners) // 2)]
        leader = ordered[0]
        return [one for one in ordered if one is leader or not self._worse(one, leader, size)]

    def _worse(self, one: Tried, leader: Tried, size: int) -> bool:
        ahead, behind = ([tried.answers[place] for place in range(size)] for tried in (leader, one))
        return compare(ahead, behind, self.metric, resamples=RESAMPLES).verdict == "worse"

    def ranked(self, tried: Sequence[Tried], size: int | None = None) -> list[Tried]:
        """The best first; of equals the shorter."""
        return sorted(tried, key=lambda one: (-self.gain * self.figure(one, size), _length(one.candidate.prompt)))

    def figure(self, one: Tried, size: int | None = None) -> float:
        """The metric on the first `size` dev rows that a candidate answered."""
        answers = [answer for place, answer in sorted(one.answers.items()) if size is None or place < size]
        return float(self.metric.value(self.metric.statistics(answers).sum(0)))

    def note(self, one: Tried) -> None:
        """A candidate that answered every dev row; the best of these is kept as a file at once."""
        if not self.best.answers or self.ranked([self.best, one])[0] is one:
            self.best = one
            self.folder.write(BEST, self._described(one))
        cost = self.cost()
        line = {"step": len(self.tried), f"dev_{self.metric.name}": self.figure(one)}
        self.logs.metrics({**line, f"dev_best_{self.metric.name}": self.figure(self.best), "calls": int(cost["calls"])})

    def _said(self) -> str:
        cost = self.cost()
        money = f" · cost {cost['cost']:.4g}" if cost["cost"] else ""
        best = f"best {self.metric.name} {self.figure(self.best):.3f} on dev" if self.best.answers else "no prompt yet"
        return f"{best} · {cost['calls']:.0f} calls{money}"

    def _described(self, one: Tried) -> dict[str, Any]:
        figures = {"metric": self.metric.name, "dev": self.figure(one), "rows": len(one.answers)}
        return {"origin": one.candidate.origin, **figures, "prompt": one.candidate.prompt.as_dict()}

    # --- proposals --------------------------------------------------------------------------------------------------

    def demonstrations(self) -> Demonstrations:
        """The training rows that can be shown; which of them the base gets right is asked when it is first needed."""
        rows = [(pair, one) for pair in self.train if (one := self._shown(pair[0])) is not None]
        self.rng.shuffle(rows)
        rows = rows[:POOL]
        right: list[Demonstration] = []

        def ask_once() -> list[Demonstration]:
            if not right:
                some = rows[:BOOTSTRAPPED]
                scores = self.metric.scores(self.ask(self.bare.candidate.prompt, [pair for pair, _ in some]))
                best = sorted(range(len(some)), key=lambda place: -scores[place])
                most = [place for place in best if scores[place] >= scores[best[0]]]
                right.extend(
                    some[place][1] for place in (most if len(most) > len(best) // 4 else best[: len(best) // 4 + 1])
                )
            return right

        return Demonstrations([one for _, one in rows], bool(self.objective.choices), ask_once, self.job.plan.seed)

    def _shown(self, example: Any) -> Demonstration | None:
        """A row as a demonstration: one question in words, and its answer."""
        question = next(iter(self.objective.questions(example)), None)
        if question is None or question.tools or not isinstance(question.expected, str):
            return None
        asked = [turn.content for turn in question.messages if turn.role != "system"]
        return Demonstration(asked[0], question.expected) if len(asked) == 1 else None

    def fitted(self, candidate: Candidate) -> Candidate:
        """A candidate with as many demonstrations as the context holds beside the longest dev rows."""
        fits = getattr(self.space.generator, "fits", None)
        if fits is None or not candidate.prompt.most:
            return candidate
        longest = sorted(self.dev, key=lambda pair: -len(pair[0].shown))[:2]
        prompt = candidate.prompt
        while prompt.most and not all(fits(self.objective.under(prompt).questions(one)[0]) for one, _ in longest):
            prompt = _with_fewer(prompt)
        return Candidate(prompt, candidate.origin)

    def calibrated(self, tried: Sequence[Tried]) -> list[Candidate]:
        """Candidates with what the base says of each choice where nothing is asked."""
        if not (self.options.calibrate and self.objective.choices and hasattr(self.space.generator, "likelihoods")):
            return []
        return [
            Candidate(replace(one.candidate.prompt, prior=self._prior(one.candidate.prompt)), "calibrated")
            for one in tried
            if not one.candidate.prompt.prior
        ]

    def _prior(self, prompt: Prompt) -> dict[str, float]:
        """The log of the mean probability of each choice over inputs that ask nothing, among the choices."""
        objective = self.objective.under(prompt)
        example = self.dev[0][0]
        blanks = [
            replace(example, messages=(replace(example.messages[0], content=text), *example.messages[1:]))
            for text in EMPTY
        ]
        self.check_budget(len(blanks))
        questions = [objective.questions(blank)[0] for blank in blanks]
        nats = self.space.generator.likelihoods(questions, objective.choices)
        shares = np.exp(nats - nats.max(-1, keepdims=True))
        mean = (shares / shares.sum(-1, keepdims=True)).mean(0)
        return {name: round(float(np.log(value)), 6) for name, value in zip(objective.choices, mean, strict=True)}

    # --- what is kept -----------------------------------------------------------------------------------------------

    def keep_scored(self) -> None:
        """The requests that score the chosen prompt, training rows too where dev has few; the table of all prompts."""
        prompt = self.best.candidate.prompt
        objective = self.objective.under(prompt)
        rows = []
        for example, row in [*self.dev, *self.space.examples["train"]][:PROOF_ROWS]:
            asked = asked_of(self.space.generator, objective, example, row)
            if asked.question is not None:
                raw = asdict(self.objective.questions(example)[0])
                rows.append(
                    {"id": example.id, "question": raw, "request": self.space.generator.request(asked.question)}
                )
        self.folder.write(SCORED, {"prompt": prompt.digest(), "rows": rows})
        table = [self._described(one) for one in self.ranked([one for one in self.tried.values() if one.answers])]
        table.sort(key=lambda one: -one["rows"])
        for one in table:  # the pool is the same for all that retrieve, and long
            if one["prompt"]["nearest"]:
                one["prompt"]["demonstrations"] = f"the nearest of {len(one['prompt']['demonstrations'])} training rows"
        lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in table)
        write_text(self.job.folder / FOLDER / "prompts.jsonl", lines)
        self.logs.sync()

    def figures(self) -> dict[str, Any]:
        """What the summary tells of the search."""
        return {
            "dev_metric": self.metric.name,
            "dev_bare": self.figure(self.bare),
            "dev_best": self.figure(self.best),
            "chosen": self.best.candidate.origin,
            "ended_by": self.ended_by,
        }


def _length(prompt: Prompt) -> int:
    return len(prompt.lead) + sum(len(one.question) + len(one.answer) for one in prompt.demonstrations[: prompt.most])


def _with_fewer(prompt: Prompt) -> Prompt:
    if prompt.nearest:
        fewer = prompt.nearest - 1
        return replace(prompt, nearest=fewer, demonstrations=prompt.demonstrations if fewer else ())
    return replace(prompt, demonstrations=prompt.demonstrations[:-1])
