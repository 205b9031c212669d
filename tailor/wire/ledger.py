"""What was asked of a model behind an API, what it costs, and how much more may be asked."""

import threading
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

    A request counts once, whether its answer comes from the server or from the cache: a run that is resumed, or made again,
    then stops where it would have stopped uninterrupted.

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
        self._lost = 0.0

    def fits(self, key: str, most: float) -> bool:
        """Whether a further request that costs at most so much stays within the budget, whatever is under way costs."""
        if key in self._counted:
            return True
        calls, cost = self.calls + len(self._open) + 1, self.cost + self._lost + sum(self._open.values()) + most
        limits = self.limits
        return (limits.max_calls is None or calls <= limits.max_calls) and (
            limits.max_cost is None or cost <= limits.max_cost
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
        if key in self._counted:
            return
        self._counted.add(key)
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
        if self.limits.max_calls is not None and self.calls >= self.limits.max_calls:
            return BudgetSpent(f"the budget of {self.limits.max_calls} calls is spent", f"{self.where}.max_calls", kept)
        lost = f", up to {self._lost:.4g} of it by requests that got no answer" if self._lost else ""
        return BudgetSpent(
            f"of the budget of {self.limits.max_cost:g}, {self.cost + self._lost:.4g} is spent{lost}, and the next request "
            f"may cost {most:.4g}",
            f"{self.where}.max_cost",
            kept,
        )


class Accounts:
    """Several ledgers that every request is entered in: room is set aside in all of them before it is sent.

    Requests under way at once can therefore never exceed a budget together.
    """

    def __init__(self, *ledgers: Ledger) -> None:
        self.ledgers = ledgers

    def reserve(self, key: str, most: float) -> None:
        """Set room aside for a request that costs at most so much, once what is under way has told what it costs.

        Raises:
            BudgetSpent: it does not fit, and nothing is under way that could leave room.
        """
        with ROOM:
            while (full := next((ledger for ledger in self.ledgers if not ledger.fits(key, most)), None)) is not None:
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
