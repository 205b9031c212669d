"""What a person sees while a run goes on: messages and progress on stderr, so that stdout stays one JSON document."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

AGAIN = 30.0
"""Seconds after which a person wonders whether anything goes on."""


class Advance(Protocol):
    """A progress bar in motion."""

    def advance(self, text: str) -> None: ...


class Reporter:
    """Messages and progress bars; `quiet` keeps both back."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False)

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """What is waited for, said at once, and again every half a minute with the time that has gone by."""
        done, start = threading.Event(), time.monotonic()
        self.say(text)

        def again() -> None:
            while not done.wait(AGAIN):
                self.say(f"{text}: {time.monotonic() - start:.0f} s so far")

        teller = threading.Thread(target=again, daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()

    @contextlib.contextmanager
    def progress(self, title: str, total: int, done: int = 0) -> Iterator[Advance]:
        """A bar with the time left; on something that is no terminal, a line every tenth."""
        if self.quiet or not sys.stderr.isatty():
            yield _Lines(self, title, total, done)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[text]}"), console=self.console) as bar:
            yield _Bar(bar, bar.add_task(title, total=total, completed=done, text=""))


class _Bar:
    def __init__(self, bar: Progress, task: object) -> None:
        self._bar, self._task = bar, task

    def advance(self, text: str) -> None:
        self._bar.update(self._task, advance=1, text=text)  # type: ignore[arg-type]


class _Lines:
    """Progress for logs: about ten lines in all."""

    def __init__(self, reporter: Reporter, title: str, total: int, done: int) -> None:
        self._reporter, self._title, self._total, self._done = reporter, title, total, done
        self._every = max(1, total // 10)

    def advance(self, text: str) -> None:
        self._done += 1
        if self._done % self._every == 0 or self._done == self._total:
            self._reporter.say(f"{self._title} {self._done}/{self._total} · {text}")
