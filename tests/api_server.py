"""A scripted server that speaks OpenAI's protocol over real HTTP on loopback, and misbehaves as it is told to."""

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Rule = Callable[[Mapping[str, Any]], Any]
FALSE_KEY = {"error": {"message": "Incorrect API key provided: {key}", "code": "invalid_api_key"}}


@dataclass
class Script:
    """What the server says, and what was heard.

    Args:
        rule: from a request's body to the answer: a text, or a whole message.
        faults: what goes wrong with the next requests, in order; then nothing does.
        usage: whether tokens are told: 10 a request and 5 an answer.
        slow: seconds before every answer.
        key: the only one that is taken, where one is asked for.
    """

    rule: Rule = field(default=lambda body: "yes")
    faults: list[Any] = field(default_factory=list)
    usage: bool = True
    slow: float = 0.0
    key: str | None = None
    heard: list[dict[str, Any]] = field(default_factory=list)
    answered: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON of an answer."""
        said = self.rule(body)
        chat = path.endswith("/chat/completions")
        message = {"role": "assistant", "content": said} if isinstance(said, str) else said
        part = {"message": message} if chat else {"text": said}
        usage = {"usage": {"prompt_tokens": 10, "completion_tokens": 5}} if self.usage else {}
        return {"id": "1", "choices": [{"index": 0, "finish_reason": "stop", **part}], **usage}


class Handler(BaseHTTPRequestHandler):
    """One request; the script lies on the server."""

    protocol_version = "HTTP/1.1"

    @property
    def script(self) -> Script:
        return self.server.script  # type: ignore[attr-defined,no-any-return]

    def do_GET(self) -> None:
        """The models that there are."""
        self.send(200, {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "us"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        script, given = self.script, self.headers.get("Authorization", "").removeprefix("Bearer ")
        with script.lock:
            script.heard.append(body)
            script.keys.add(given)
            script.busy += 1
            script.busiest = max(script.busiest, script.busy)
            fault = script.faults.pop(0) if script.faults else None
        try:
            time.sleep(script.slow)
            if script.key is not None and given != script.key:
                told = FALSE_KEY["error"]
                self.send(401, {"error": {**told, "message": told["message"].format(key=given)}})
            elif fault is None:
                answer = script.answer(self.path, body)
                with script.lock:
                    script.answered.append(body)
                self.send(200, answer)
            else:
                fault(self, body)
        finally:
            with script.lock:
                script.busy -= 1

    def send(self, status: int, values: Any, headers: Mapping[str, str] | None = None) -> None:
        self.raw(status, json.dumps(values).encode(), headers or {})

    def raw(self, status: int, content: bytes, headers: Mapping[str, str], missing: int = 0) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content) + missing))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""


def status(code: int, message: str = "try later", **headers: str) -> Callable[[Handler, Any], None]:
    """An answer with a status and headers (`Retry_After`)."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, body: handler.send(code, {"error": {"message": message, "code": message}}, told)


def silence(seconds: float) -> Callable[[Handler, Any], None]:
    """Nothing, for longer than the client waits."""
    return lambda handler, body: time.sleep(seconds)


def drop(handler: Handler, body: Any) -> None:
    """Half an answer, then the connection is gone."""
    content = json.dumps(handler.script.answer(handler.path, body)).encode()
    handler.raw(200, content[: len(content) // 2], {}, missing=len(content))
    handler.close_connection = True


def hang_up(handler: Handler, body: Any) -> None:
    """The connection is gone without a word."""
    handler.close_connection = True


def garbled(handler: Handler, body: Any) -> None:
    """Half of the JSON, as if it were all."""
    content = json.dumps(handler.script.answer(handler.path, body)).encode()
    handler.raw(200, content[: len(content) // 2], {})


def page(handler: Handler, body: Any) -> None:
    """A web page."""
    handler.raw(200, b"<html>hello</html>", {"Content-Type": "text/html"})


@contextlib.contextmanager
def serving(script: Script, certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """The address of a server that follows a script, up to /v1; with a certificate and its key, over TLS."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.script = script  # type: ignore[attr-defined]
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that gives up is none
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
