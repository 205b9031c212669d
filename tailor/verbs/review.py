"""`tailor review`: base and tuned answers side by side on a local page, blind, and the votes counted.

The page is served on the loopback address alone, below a path that nobody can guess, so that no other page can vote.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from tailor.core.answers import Pair, read_answers
from tailor.core.errors import RunError
from tailor.core.reporting import Reporter
from tailor.core.runs import RunFolder
from tailor.evaluation.votes import VOTES, Vote, keep_vote, rate_sentence, read_votes, win_rate

PAGE = Path(__file__).with_name("review.html.jinja")
LOOPBACK = "127.0.0.1"
LARGEST = 10_000
"""Bytes of a request; a vote takes fewer than a hundred."""
LINGER = 2.0
"""Seconds after the last vote in which the page still shows the result."""


class Review:
    """The pairs of a run in an order of their own, each with its sides drawn by its id, and the votes so far."""

    def __init__(self, run: Path) -> None:
        self.folder = RunFolder.existing(run).path
        pairs = read_answers(self.folder)
        self.pairs = {pair.id: pair for pair in sorted(pairs, key=_drawn) if pair.base != pair.tuned}
        self.identical = len(pairs) - len(self.pairs)
        if not self.pairs:
            raise RunError(
                "base and tuned model answer alike on every row", where=str(run), fix="nothing is to be chosen"
            )
        self.file = self.folder / VOTES
        self.votes = {key: vote for key, vote in read_votes(self.file).items() if key in self.pairs}
        self.lock = Lock()

    @property
    def finished(self) -> bool:
        """Whether every pair has a vote."""
        return len(self.votes) == len(self.pairs)

    def next(self) -> dict[str, Any]:
        """The next pair without a vote, its sides blind; the result once there is none."""
        told = {"done": len(self.votes), "total": len(self.pairs)}
        pair = next((pair for key, pair in self.pairs.items() if key not in self.votes), None)
        if pair is None:
            return {**told, "result": rate_sentence(self.result())}
        first, second = (getattr(pair, side) for side in _sides(pair))
        return {**told, "id": pair.id, "prompt": pair.prompt, "expected": pair.expected, "1": first, "2": second}

    def vote(self, key: str, choice: str) -> None:
        """Keep a vote: side 1 or 2, or 0 for a tie; raises `ValueError` where there is no such pair or choice."""
        if key not in self.pairs or choice not in ("0", "1", "2"):
            raise ValueError(f"no pair {key!r} or no choice {choice!r}")
        sides = _sides(self.pairs[key])
        vote: Vote = "tie" if choice == "0" else sides[int(choice) - 1]
        with self.lock:
            keep_vote(self.file, key, vote, first=sides[0])
            self.votes[key] = vote

    def result(self) -> dict[str, Any]:
        """The win rate so far."""
        counts = {"run": str(self.folder), "pairs": len(self.pairs), "identical": self.identical}
        return {**counts, **win_rate(self.votes), "file": str(self.file)}


def _drawn(pair: Pair) -> bytes:
    return hashlib.sha256(pair.id.encode()).digest()


def _sides(pair: Pair) -> tuple[Vote, Vote]:
    """Which model stands first: by the pair's id, so that a reload changes nothing."""
    return ("base", "tuned") if _drawn(pair)[-1] % 2 else ("tuned", "base")


def review(run: str, *, port: int, reporter: Reporter) -> dict[str, Any]:
    """Serve the page until every pair has a vote or the user stops it, and return the win rate."""
    sitting = Review(Path(run))
    if sitting.finished:
        return sitting.result()
    with server(sitting, port) as serving:
        thread = Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        reporter.say(
            f"open {address(serving)} and vote by the keys 1, 2 and 0 (a tie); Ctrl-C ends it, every vote is kept"
        )
        try:
            while not sitting.finished:
                time.sleep(0.2)
            time.sleep(LINGER)
        except KeyboardInterrupt:
            pass
        serving.shutdown()
    return sitting.result()


class Serving(ThreadingHTTPServer):
    """The server of one review; `token` is the path that it answers below."""

    daemon_threads = True
    token: str


def server(sitting: Review, port: int) -> Serving:
    """A server on the loopback address; port 0 takes any that is free."""
    token = secrets.token_urlsafe(12)
    try:
        made = Serving((LOOPBACK, port), partial(_Handler, sitting, token))
    except (OSError, OverflowError) as error:
        raise RunError(
            f"this port cannot be used: {error}", where=f"port {port}", fix="--port 0 takes a free one"
        ) from None
    made.token = token
    return made


def address(serving: Serving) -> str:
    """Where the page is."""
    return f"http://{LOOPBACK}:{serving.server_address[1]}/{serving.token}/"


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, sitting: Review, token: str, *parts: Any) -> None:
        self.sitting, self.root = sitting, f"/{token}/"
        super().__init__(*parts)

    def do_GET(self) -> None:
        """The page, and the next pair."""
        if self.path == self.root:
            self._send(PAGE.read_bytes(), "text/html; charset=utf-8")
        elif self.path == f"{self.root}next":
            self._tell(self.sitting.next())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """A vote; what comes back is the next pair."""
        if self.path != f"{self.root}vote":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            size = int(self.headers.get("Content-Length", "0"))
            values = json.loads(self.rfile.read(min(size, LARGEST)))
            self.sitting.vote(str(values["id"]), str(values["vote"]))
        except (ValueError, KeyError, TypeError):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        self._tell(self.sitting.next())

    def _tell(self, values: Mapping[str, Any]) -> None:
        self._send(json.dumps(values, ensure_ascii=False).encode(), "application/json; charset=utf-8")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *parts: Any) -> None:
        """Nothing: the terminal is the user's."""
