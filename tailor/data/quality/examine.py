"""One pass over all rows of the training and test sources, and what it found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tailor.core.reporting import Reporter
from tailor.data.keys import normalise, sides
from tailor.data.load import Loaded
from tailor.data.quality.lenses import Damage, Labels, Lens, Personal, Preferences
from tailor.data.quality.near import SAMPLE, Near, Signatures, boilerplate, clusters
from tailor.data.quality.noise import Judgement, judge, tfidf
from tailor.data.quality.overlap import Overlap, TestRuns
from tailor.data.quality.talk import Reasoning, Tools, Variety
from tailor.data.quality.texts import Languages, Lengths
from tailor.data.table import Entry

JUDGED = 20_000
"""So many rows' labels are judged; of more, evenly spread ones."""
STEPS = 100
"""The progress bar moves so often."""
LONG = 20_000
"""Rows from which the pass takes long enough to be watched."""

ON_TEST = 2
"""So many of the lenses, the first ones, look at the test rows too."""
WRITTEN = {"chat", "instruction", "source_target", "preference", "text"}
"""Forms whose targets are texts, which may hold a test row's words too."""

Embed = Callable[[Sequence[str]], Any]
"""Texts to features of length 1, (rows, width)."""


def lenses_for(form: str) -> list[Lens]:
    """What is looked for in rows of a form."""
    found: list[Lens] = [Personal(), Damage(), Languages(form), Lengths(form)]
    if form in ("classification", "tagging"):
        found.append(Labels(form))
    if form == "preference":
        found.append(Preferences())
    if form in ("chat", "instruction"):
        found += [Reasoning(), Variety()]
    if form == "chat":
        found.append(Tools())
    return found


@dataclass(frozen=True, slots=True)
class Leak:
    """A test row and the training row that it is nearly, or that holds a long run of it; how like, or how much of it."""

    test: int
    train: int
    kind: Literal["near", "overlap"]
    share: float


class Examination:
    """One pass over loaded data. Rows are numbered through: the training source's, then those of a test source of its own.

    Args:
        loaded: the data.
        reporter: shows how far the pass is.
        embed: features of texts, to judge labels by; None: TF-IDF.
    """

    def __init__(self, loaded: Loaded, reporter: Reporter, embed: Embed | None = None) -> None:
        self.form = loaded.form.name
        self.lenses = lenses_for(self.form)
        self._pools = [loaded.pools["train"]]
        if "test" not in loaded.drawn:
            self._pools.append(loaded.pools["test"])
        self.own = len(self._pools[0])
        total = sum(map(len, self._pools))
        self.tests = list(loaded.drawn.get("test", range(self.own, total)))
        drawn = ("dev", "test") if len(self._pools) == 1 else ()
        self._held = {number for name in drawn for number in loaded.drawn.get(name, ())}
        self._inputs = np.concatenate([np.array(pool.normalised_inputs, dtype=np.uint64) for pool in self._pools])
        self.near, self.runs = self._pass(total, reporter)
        self.clusters = clusters(pair for pair in self.near if pair.second < self.own)
        self.leaks = self._leaks()
        self.judgement = self._judge(embed or tfidf) if loaded.form.label == "class" else None

    def entry(self, number: int) -> Entry:
        """A row by its number."""
        return self._pools[0].store[number] if number < self.own else self._pools[1].store[number - self.own]

    def text(self, number: int) -> str:
        """What a row gives a model to go by, normalised."""
        return normalise(sides(self.form, self.entry(number).row)[0])

    def _pass(self, total: int, reporter: Reporter) -> tuple[list[Near], list[Overlap]]:
        if self.form == "images":
            self._look_at_all(total, reporter, lambda number, entry: None)
            return [], []
        sample = range(0, total, max(1, total // SAMPLE))
        signatures = Signatures(boilerplate(self.text(number) for number in sample))
        runs = TestRuns(self.text(number) for number in self.tests)

        def read(number: int, entry: Entry) -> None:
            given, target = sides(self.form, entry.row)
            plain = normalise(given)
            signatures.add(plain)
            if self._trains(number):
                runs.read(f"{plain} {normalise(target)}" if self.form in WRITTEN else plain, number)

        self._look_at_all(total, reporter, read)
        places = np.concatenate([np.array(pool.places, dtype=np.uint64) for pool in self._pools])

        def told(one: int, two: int) -> bool:
            """Equal inputs are counted as such, and questions about one context share it."""
            return bool(self._inputs[one] == self._inputs[two] or places[one] == places[two])

        return list(signatures.pairs(self.text, told)), runs.overlaps()

    def _look_at_all(self, total: int, reporter: Reporter, read: Callable[[int, Entry], None]) -> None:
        every = max(1, total // STEPS)
        reporter = reporter if total >= LONG else Reporter(quiet=True)
        with reporter.progress("examining", total // every) as progress:
            for number in range(total):
                entry = self.entry(number)
                for lens in self.lenses if number < self.own else self.lenses[:ON_TEST]:
                    lens.look(entry)
                read(number, entry)
                if (number + 1) % every == 0:
                    progress.advance(f"{number + 1:,} rows")

    def _trains(self, number: int) -> bool:
        """Whether a row trains, or chooses what a test source of its own is to judge."""
        return number < self.own and number not in self._held

    def _leaks(self) -> list[Leak]:
        """Test rows that training nearly holds, or of which it holds a long run; each once, in their order."""
        tests = set(self.tests)
        train = np.delete(self._inputs[: self.own], sorted(self._held))
        same = np.array(self.tests, dtype=np.int64)[np.isin(self._inputs[self.tests], train)]
        known = set(same.tolist())
        found: dict[int, Leak] = {}
        for pair in self.near:
            for test, other in ((pair.first, pair.second), (pair.second, pair.first)):
                if test in tests and test not in known and self._trains(other):
                    found.setdefault(test, Leak(test, other, "near", pair.likeness))
        for run in self.runs:
            test = self.tests[run.test]
            if test not in known:
                found.setdefault(test, Leak(test, run.train, "overlap", run.share))
        return [found[test] for test in sorted(found)]

    def _judge(self, embed: Embed) -> Judgement:
        step = -(-self.own // JUDGED)
        numbers = range(0, self.own, step)
        entries = [self.entry(number) for number in numbers]
        judged = judge(
            embed(["\n".join(entry.row["texts"]) for entry in entries]), [entry.row["label"] for entry in entries]
        )
        return Judgement([replace(doubt, row=numbers[doubt.row]) for doubt in judged.doubts], judged.agreement)
