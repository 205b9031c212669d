"""How many steps a length of time is worth here: a few of them are made, and timed, before a run begins.

So a budget in seconds becomes a number of steps that stands in the recipe, and the run can be made again.
"""

import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tailor.engine import loop
from tailor.engine.loop import Job
from tailor.engine.place import Trackers
from tailor.engine.settings import MOST_LOOKS

WARM, TIMED = 2, 4
"""Steps that are made first, and those that are timed."""


@dataclass(frozen=True)
class Pace:
    """Seconds of an optimizer step, of a look at dev, and what it took to find out."""

    step: float
    look: float
    spent: float

    def steps_in(self, seconds: float) -> int:
        """Steps of a run that fit into so many seconds, with the looks at dev that a run takes."""
        return int((seconds - MOST_LOOKS * self.look) / self.step)


def pace(job: Job) -> Pace:
    """The pace of a job, which is not to be used afterwards: its weights have moved."""
    start = time.perf_counter()
    count = WARM + TIMED
    with tempfile.TemporaryDirectory(prefix="tailor-pace-") as folder:
        plan = replace(job.plan, steps=count, look_every=count + 1, checkpoint_every=count + 1)
        loop.fit(replace(job, plan=plan, folder=Path(folder), trackers=Trackers((), Path(folder), {}), dev=()))
        lines = [json.loads(line) for line in (Path(folder) / "timing.jsonl").read_text().splitlines()]
    step = (lines[-1]["seconds"] - lines[WARM - 1]["seconds"]) / TIMED
    before = time.perf_counter()
    if len(job.dev):
        loop.dev_loss(job)
    return Pace(step, time.perf_counter() - before, time.perf_counter() - start)
