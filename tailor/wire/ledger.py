"""What was asked of a model behind an API, what it costs, and how much more may be asked."""

import contextlib
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from tailor.core.errors import BudgetSpent
from tailor.recipe.base import BudgetOptions

ROOM = threading.Condition()
"""Held while accounts are read or written; told when a request has ended."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answered request, and what they cost by the endpoint's prices."""

    prompt_tokens: int
    completion_tokens: int
    cost: float


class Ledger:
    """Accounts of answered requests, and the budget that they must stay within.

    A question counts once however often its answer comes from the cache, and every time that the server is paid for it: a
    run that is resumed, or made again, then stops where it would have stopped uninterrupted.

    Args:
        limits: the most answered requests, and the most that they may cost.
        where: the recipe key that the limits stand under.
    """

    def __init__(self, limits: BudgetOptions, where: str) -> None:
        self.limits, self.where = limits, where
        self.calls = self.cached_calls = self.prompt_tokens = self.completion_tokens = 0
        self.cost = self.paid = 0.0
        self._open: dict[str, float] = {}
        self._counted: set[str] = set()
        self._lost = self._dearest = 0.0
        self._later = 0

    def narrow(self, limits: BudgetOptions) -> None:
        """Keep to further limits as well."""
        with ROOM:
            pairs = ((name, (getattr(self.limits, name), getattr(limits, name))) for name in BudgetOptions.model_fields)
            least = {name: min((one for one in both if one is not None), default=None) for name, both in pairs}
            self.limits = BudgetOptions(**least)

    @contextlib.contextmanager
    def keeping(self, later: int) -> Iterator[None]:
        """Room is kept for so many later requests, each as dear as the dearest so far: a search leaves room for its test."""
        with ROOM:
            self._later += later
        try:
            yield
        finally:
            with ROOM:
                self._later -= later

    def fits(self, key: str, most: float, cached: bool) -> bool:
        """Whether a further request that costs at most so much stays within the budget, whatever is under way costs."""
        if cached and key in self._counted:
            return True
        calls, cost = self.calls + len(self._open) + 1, self.cost + self._lost + sum(self._open.values()) + most
        limits, later = self.limits, self._later
        return (limits.max_calls is None or calls + later <= limits.max_calls) and (
            limits.max_cost is None or cost + later * self._dearest <= limits.max_cost
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._open

    def open(self, key: str, most: float) -> None:
        """A request is under way."""
        self._open[key] = most

    def enter(self, key: str, usage: Usage, cached: bool) -> None:
        """A request was answered."""
        self._open.pop(key)
        if not cached:
            self.paid += usage.cost
        if cached and key in self._counted:
            return
        self._counted.add(key)
        self._dearest = max(self._dearest, usage.cost)
        self.calls += 1
        self.cached_calls += cached
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        self.cost += usage.cost

    def strike(self, key: str, perhaps_billed: bool) -> None:
        """A request got no answer; what may have been billed all the same stays spent."""
        most = self._open.pop(key)
        self._lost += most if perhaps_billed else 0.0

    def spent(self, most: float) -> BudgetSpent:
        """Why a request that costs at most so much does not fit."""
        kept = "raise it and start again: answers that were paid for are kept"
        calls, later = self.limits.max_calls, self._later
        if calls is not None and self.calls + later >= calls:
            said = f"the budget of {calls} calls is spent"
            if later:
                said = f"of the budget of {calls} calls, {self.calls} are made, and up to {later} are kept for the test rows"
            return BudgetSpent(said, f"{self.where}.max_calls", kept)
        lost = f", up to {self._lost:.4g} of it by requests that got no answer" if self._lost else ""
        held = f", with {later * self._dearest:.4g} kept for the test rows" if later else ""
        return BudgetSpent(
            f"of the budget of {self.limits.max_cost:g}, {self.cost + self._lost:.4g} is spent{lost}, and the next request "
            f"may cost {most:.4g}{held}",
            f"{self.where}.max_cost",
            kept,
        )


class Accounts:
    """Several ledgers that every request is entered in: room is set aside in all of them before it is sent.

    Requests under way at once can therefore never exceed a budget together.
    """

    def __init__(self, *ledgers: Ledger) -> None:
        self.ledgers = ledgers

    def reserve(self, key: str, most: float, *, cached: bool = False) -> None:
        """Set room aside for a request that costs at most so much, once what is under way has told what it costs.

        Args:
            cached: its answer is known already, and counts where it was not counted before.

        Raises:
            BudgetSpent: it does not fit, and nothing is under way that could leave room.
        """
        with ROOM:
            while full := next((ledger for ledger in self.ledgers if not ledger.fits(key, most, cached)), None):
                if full.idle:
                    raise full.spent(most)
                ROOM.wait()
            for ledger in self.ledgers:
                ledger.open(key, most)

    def settle(self, key: str, usage: Usage, *, cached: bool) -> None:
        """Enter an answer."""
        with ROOM:
            for ledger in self.ledgers:
                ledger.enter(key, usage, cached)
            ROOM.notify_all()

    def release(self, key: str, *, perhaps_billed: bool) -> None:
        """Give up the room of a request that got no answer."""
        with ROOM:
            for ledger in self.ledgers:
                ledger.strike(key, perhaps_billed)
            ROOM.notify_all()


_LEDGERS: ContextVar[dict[str, Ledger] | None] = ContextVar("ledgers", default=None)
"""Of the command under way, by endpoint."""


@contextlib.contextmanager
def one_command() -> Iterator[None]:
    """What is asked of an endpoint in here counts against one budget; a command within a command is a part of it."""
    if _LEDGERS.get() is not None:
        yield
        return
    before = _LEDGERS.set({})
    try:
        yield
    finally:
        _LEDGERS.reset(before)


def ledger_of(endpoint: str, limits: BudgetOptions, where: str) -> Ledger:
    """The command's ledger of an endpoint, within these limits too; one of its own where no command is under way."""
    known = _LEDGERS.get()
    if known is None:
        return Ledger(limits, where)
    ledger = known.setdefault(endpoint, Ledger(limits, where))
    ledger.narrow(limits)
    return ledger
