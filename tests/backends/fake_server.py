"""A model server that does what a test tells it, faults included, and remembers what it was asked."""

import base64
import io
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np


@dataclass
class Answer:
    """What to answer with."""

    status: int = 200
    body: object = b""
    """Bytes as they are, anything else as JSON."""

    headers: dict = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before anything is sent."""

    gap: float = 0.0
    """Seconds between pieces of a stream."""

    events: list | None = None
    """Server-sent events instead of a body: texts as they are, anything else as JSON."""

    drop_at: int | None = None
    """Close the connection after so many bytes of the body (or events of the stream)."""


def completion(text, *, finish_reason="stop", usage=(7, 3), **message):
    """An answer's body as OpenAI's API reference has it."""
    return {
        "id": "1",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": finish_reason}
        ],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]},
    }


def chunk(finish_reason=None, **delta):
    """A piece of a stream."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


@dataclass
class Seen:
    """A request that came."""

    path: str
    body: dict
    headers: dict
    at: float


class FakeServer:
    """Serves on 127.0.0.1 from a thread while in use as a context manager.

    Args:
        answer: From (what was asked, how many were asked before) to an `Answer`, a body, or a text.
    """

    def __init__(self, answer):
        self.seen = []
        self.active = self.peak = self.broken = 0
        self._answer = answer
        self._lock = threading.Lock()
        self._closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_POST(self):
                server._serve(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                server.broken += 1  # the client went away

        self._http = Server(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()

    def _serve(self, handler):
        raw = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        with self._lock:
            number = len(self.seen)
            self.seen.append(Seen(handler.path, json.loads(raw), dict(handler.headers), time.monotonic()))
            self.active += 1
            self.peak = max(self.peak, self.active)
        try:
            answer = self._answer(self.seen[number], number)
            if not isinstance(answer, Answer):
                answer = Answer(body=completion(answer) if isinstance(answer, str) else answer)
            self._closing.wait(answer.delay)
            self._reply(handler, answer)
        finally:
            with self._lock:
                self.active -= 1

    def _reply(self, handler, answer):
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.events is not None:
            handler.send_header("Content-Type", "text/event-stream")
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.close_connection = True
            for event in answer.events[: answer.drop_at]:
                data = event if isinstance(event, str) else json.dumps(event)
                handler.wfile.write(f"data: {data}\n\n".encode())
                handler.wfile.flush()
                self._closing.wait(answer.gap)
            return
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if "Content-Type" not in answer.headers:
            handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: answer.drop_at])
        if answer.drop_at is not None:
            handler.close_connection = True
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)


def pictures_in(body):
    """The pictures of a request's body, decoded, in order."""
    from PIL import Image

    urls = [
        part["image_url"]["url"]
        for message in body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
        if part["type"] == "image_url"
    ]
    marks = [url.partition(",") for url in urls]
    assert all(mark[0] == "data:image/png;base64" for mark in marks)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(mark[2])))) for mark in marks]
