"""What was asked of a model behind an API, what it costs, and how much more may be asked."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from tailor.core.errors import BudgetSpent
from tailor.recipe.base import BudgetOptions


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one answered request, and what they cost by the endpoint's prices."""

    prompt_tokens: int
    completion_tokens: int
    cost: float


class Ledger:
    """Accounts of answered requests under a hard budget.

    Room for a request is set aside before it is sent, at the most that it can cost, so that requests under way at once can
    never exceed the budget together. A request counts once, whether its answer comes from the server or from the cache:
    a run that is resumed, or run again, then stops where it would have stopped uninterrupted.

    Args:
        limits: the most answered requests, and the most that they may cost.
        where: the recipe key that the limits stand under.
        above: accounts that these are a part of; both budgets hold.
    """

    def __init__(self, limits: BudgetOptions, where: str, above: "Ledger | None" = None) -> None:
        self.limits, self.where, self.above = limits, where, above
        self._room: threading.Condition = above._room if above else threading.Condition()
        self._open: dict[str, float] = {}
        self._counted: set[str] = set()
        self._lost = 0.0
        self.calls = self.cached_calls = self.prompt_tokens = self.completion_tokens = 0
        self.cost = self.paid = 0.0

    def reserve(self, key: str, most: float) -> None:
        """Set room aside for a request that costs at most so much, once what is under way has told what it costs.

        Raises:
            BudgetSpent: it does not fit, and nothing is under way that could leave room.
        """
        with self._room:
            while (full := next((ledger for ledger in self._line() if not ledger._fits(key, most)), None)) is not None:
                if not full._open:
                    raise full._spent(most)
                self._room.wait()
            for ledger in self._line():
                ledger._open[key] = most

    def settle(self, key: str, usage: Usage, *, cached: bool) -> None:
        """Enter an answer in the accounts."""
        with self._room:
            for ledger in self._line():
                ledger._enter(key, usage, cached)
            self._room.notify_all()

    def release(self, key: str, *, perhaps_billed: bool) -> None:
        """Give up the room of a request that got no answer; what may have been billed all the same stays spent."""
        with self._room:
            for ledger in self._line():
                most = ledger._open.pop(key)
                ledger._lost += most if perhaps_billed else 0.0
            self._room.notify_all()

    def _line(self) -> Iterator["Ledger"]:
        ledger: Ledger | None = self
        while ledger is not None:
            yield ledger
            ledger = ledger.above

    def _fits(self, key: str, most: float) -> bool:
        if key in self._counted:
            return True
        calls, cost = self.calls + len(self._open) + 1, self.cost + self._lost + sum(self._open.values()) + most
        limits = self.limits
        return (limits.max_calls is None or calls <= limits.max_calls) and (
            limits.max_cost is None or cost <= limits.max_cost
        )

    def _enter(self, key: str, usage: Usage, cached: bool) -> None:
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

    def _spent(self, most: float) -> BudgetSpent:
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
