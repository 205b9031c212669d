"""The loop of a prompt's search, from job to outcome: first race, variations of the winner, reflection, the last choice.

It stands above the search (`engine/search.py`) and what rewrites its best instruction (`engine/reflect.py`).
"""

import time

from tailor.core.errors import BudgetSpent
from tailor.engine import reflect
from tailor.engine.checkpoint import State
from tailor.engine.guard import StopRequest
from tailor.engine.loop import Job, Outcome
from tailor.engine.proposals import first_candidates, variations, words_for
from tailor.engine.search import Search


def fit(job: Job) -> Outcome:
    """Search (or go on searching) for a job's prompt, and leave the best one with the method.

    Raises `Interrupted` once the best so far has been kept, `DataError` where there is nothing to choose by.
    """
    start = time.perf_counter()
    with StopRequest().listening() as stop:
        search = Search(job, stop)
        try:
            try:
                carry_out(search)
            except BudgetSpent as spent:
                if len(search.bare.answers) < len(search.dev):
                    raise
                search.ended_by = spent.where
                job.reporter.say(f"the search ends here: {spent}")
            seconds = time.perf_counter() - start
            search.logs.timing({"step": len(search.tried), "seconds": seconds, "memory_bytes": job.place.peak_memory()})
            search.keep_scored()
        finally:
            job.attached.prompt = search.best.candidate.prompt
            search.logs.close()
    cost = search.cost()
    tokens = int(cost["prompt_tokens"] + cost["completion_tokens"])
    state = State(step=len(search.tried), tokens=tokens, supervised_tokens=int(cost["completion_tokens"]))
    state.computed_tokens, state.seconds = tokens, seconds
    return Outcome(state, state.step, {"calls": int(cost["calls"]), "cost": cost["cost"], **search.figures()})


def carry_out(search: Search) -> None:
    """Everything in order; what is asked first decides nothing but what is known where the budget ends it."""
    options, words = search.options, words_for(search.objective)
    shown = search.demonstrations()
    search.extend(search.bare, len(search.dev))
    search.note(search.bare)
    first = first_candidates(search.bare.candidate.prompt, options.instructions, words, options, shown)
    finalists = search.race([search.fitted(one) for one in first])
    others = [one.candidate.prompt for one in finalists[1:]]
    second = variations(search.best.candidate.prompt, options.instructions, words, others)[: options.candidates]
    search.race([search.fitted(one) for one in second] + search.calibrated([search.best, *finalists]))
    reflect.evolve(search)
    search.race(search.calibrated([search.best]))
