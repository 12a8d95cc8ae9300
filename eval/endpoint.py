"""A reader behind an OpenAI-compatible endpoint on the loopback, for systems that can only speak to one.

    POST /v1/chat/completions    one choice, not streamed; greedy, whatever temperature is asked for
    GET  /v1/models              the reader's name

What a system sends and gets is recorded here, at the wire, question by question: prompts, tokens and calls are counted by
the reader and never asked of the system. A request that no open recording belongs to is refused, because nobody would count
it. A recording can be made without the reader: each request is then kept and answered with an empty message.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from rag.errors import InputError, RagError
from rag.llm import Finish, Generation, Message, Reader
from rag.types import Usage

_LONGEST_BODY = 64_000_000
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came. `generation` is None where the reader was not asked; `prompt_tokens` are counted then."""

    messages: tuple[Message, ...]
    prompt_tokens: int
    generation: Generation | None
    seconds: float
    max_tokens: int
    stop: tuple[str, ...] = ()


@dataclass(slots=True)
class Recording:
    """The calls of one question, in order of arrival. `failure`: what the reader raised last, which the caller should raise."""

    read: bool
    calls: list[Call] = field(default_factory=list)
    failure: Exception | None = None

    @property
    def usage(self) -> Usage:
        """Of the calls that the reader answered."""
        return sum((Usage(prompt_tokens=made.prompt_tokens, completion_tokens=made.completion_tokens,
                          cached_tokens=made.cached_tokens, llm_calls=1, llm_seconds=made.seconds)
                    for call in self.calls if (made := call.generation) is not None), Usage())

    @property
    def prompt_tokens(self) -> int:
        """Over all calls, those without the reader too."""
        return sum(call.prompt_tokens for call in self.calls)

    @property
    def counted(self) -> bool:
        """The reader itself counted every generation."""
        return all(call.generation is None or call.generation.counted_by == "server" for call in self.calls)

    @property
    def finish(self) -> Finish | None:
        """Of the last call; None where the reader was not asked."""
        made = self.calls[-1].generation if self.calls else None
        return None if made is None else made.finish

    @property
    def waited_s(self) -> float:
        """Between the arrival of the requests and their answers."""
        return sum(call.seconds for call in self.calls)

    @property
    def seconds(self) -> float:
        """The same, but a generation that the reader only remembered takes as long as it took when it was made."""
        return sum(max(call.seconds, call.generation.seconds if call.generation else 0.0) for call in self.calls)


class Endpoint:
    """Serves `reader` on a free port of the loopback from a thread of its own until it is closed; the reader stays open.

    `max_tokens` holds for requests that name no limit of their own. `deadline_s`: for each call; 0 sets none.
    """

    def __init__(self, reader: Reader, *, max_tokens: int, deadline_s: float = 0.0) -> None:
        self.reader = reader
        self.max_tokens = max_tokens
        self._deadline_s = deadline_s
        self._one_question = threading.Lock()
        self._current: Recording | None = None
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05},
                                        name="evaluation-endpoint", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The base URL as OpenAI clients take it, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @contextmanager
    def recording(self, *, read: bool = True) -> Iterator[Recording]:
        """All calls that come while it is open. One at a time: a second waits for the first to end."""
        with self._one_question:
            self._current = Recording(read)
            try:
                yield self._current
            finally:
                self._current = None

    def complete(self, body: object) -> dict[str, object]:
        """The answer to one chat request, which goes into the open recording.

        Raises:
            InputError: not a request that this endpoint serves, or none that belongs to a question.
            Exception: whatever the reader raised; the recording has it too.
        """
        recording = self._current
        if recording is None:
            raise InputError("No question is being asked, so nobody would count this call.")
        request = _Request.of(body, model=self.reader.name, max_tokens=self.max_tokens)
        since = time.monotonic()
        try:
            generation = self._generate(request) if recording.read else None
            prompt_tokens = (self.reader.prompt_tokens(request.messages) if generation is None else generation.prompt_tokens)
        except Exception as error:
            recording.failure = error
            raise
        recording.calls.append(Call(request.messages, prompt_tokens, generation, time.monotonic() - since, request.max_tokens,
                                    request.stop))
        return _completion(self.reader.name, generation, prompt_tokens)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _generate(self, request: _Request) -> Generation:
        deadline = time.monotonic() + self._deadline_s if self._deadline_s else None
        return self.reader.generate(request.messages, max_tokens=request.max_tokens, stop=request.stop, deadline=deadline)


@dataclass(frozen=True, slots=True)
class _Request:
    messages: tuple[Message, ...]
    max_tokens: int
    stop: tuple[str, ...]

    @classmethod
    def of(cls, body: object, *, model: str, max_tokens: int) -> _Request:
        if not isinstance(body, dict):
            raise InputError("The body is no JSON object.")
        if body.get("model") != model:
            raise InputError(f"There is no model {body.get('model')!r} here.", hint=f"Ask for {model!r}.", field="model")
        if body.get("stream"):
            raise InputError("This endpoint does not stream.", hint="Leave `stream` out.", field="stream")
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InputError("`messages` is no list, or empty.", field="messages")
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or max_tokens
        if not isinstance(limit, int) or limit < 1:
            raise InputError(f"A limit of {limit!r} tokens is not possible.", field="max_tokens")
        return cls(tuple(_message(message) for message in messages), limit, _stops(body.get("stop")))


def _message(message: object) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(role, str) or role not in _ROLES:
        raise InputError(f"A message needs a role out of {', '.join(_ROLES)}.", field="messages")
    content = message.get("content")
    if isinstance(content, list):
        content = _joined(content)
    if not isinstance(content, str):
        raise InputError("A message needs text as its content.", field="messages")
    return Message(_ROLES[role], content)  # type: ignore[arg-type]  # the table holds nothing but roles


def _joined(parts: Sequence[object]) -> str | None:
    """The text of a message that came in parts; None if one of them is no text."""
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    return "".join(text for text in texts if isinstance(text, str)) if all(isinstance(text, str) for text in texts) else None


def _stops(stop: object) -> tuple[str, ...]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(item, str) for item in stops):
        raise InputError("`stop` is neither a text nor a list of texts.", field="stop")
    return tuple(stops)


def _completion(model: str, generation: Generation | None, prompt_tokens: int) -> dict[str, object]:
    completion, cached = (0, 0) if generation is None else (generation.completion_tokens, generation.cached_tokens)
    cut = generation is not None and generation.finish != "stop"
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion", "created": int(time.time()), "model": model,
        "choices": [{"index": 0, "finish_reason": "length" if cut else "stop",
                     "message": {"role": "assistant", "content": "" if generation is None else generation.text}}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion,
                  "total_tokens": prompt_tokens + completion, "prompt_tokens_details": {"cached_tokens": cached}},
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False          # a client that keeps its connection must not keep us

    def __init__(self, address: tuple[str, int], endpoint: Endpoint) -> None:
        super().__init__(address, _Handler)
        self.endpoint = endpoint


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second must not wait for the first's receipt
    server: _Server

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self._refuse(404, "not_found", f"There is no {self.path}.")
            return
        name = self.server.endpoint.reader.name
        self._send(200, {"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "thriftrag"}]})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _LONGEST_BODY:
            self.close_connection = True
            self._refuse(413, "too_large", f"A body of {length or 'unknown'} bytes is not taken.")
            return
        raw = self.rfile.read(int(length))
        if self.path != "/v1/chat/completions":
            self._refuse(404, "not_found", f"There is no {self.path}.")
            return
        try:
            self._send(200, self.server.endpoint.complete(json.loads(raw)))
        except InputError as error:
            self._refuse(400, error.code, str(error))
        except ValueError as error:
            self._refuse(400, "input_invalid", f"The body is no JSON: {error}.")
        except RagError as error:
            self._refuse(503, error.code, str(error))
        except Exception as error:  # the reader's defect must reach the client as an answer, not as a dead connection
            self._refuse(500, type(error).__name__, str(error))

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: standard error belongs to the progress of the run."""

    def _refuse(self, status: int, code: str, message: str) -> None:
        kind = "invalid_request_error" if status < 500 else "server_error"
        self._send(status, {"error": {"message": message, "type": kind, "param": None, "code": code}})

    def _send(self, status: int, body: Mapping[str, object]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)
