"""Counting tokens with the tokenizer of the model that will read them. Budgets and costs mean nothing in any other unit."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

from rag.errors import ModelCorrupt, ModelUnavailable, UpstreamError

if TYPE_CHECKING:
    import httpx
    from tokenizers import AddedToken, Tokenizer

Dialect = Literal["vllm", "llama.cpp", "none"]
_REMEMBERED = 20_000            # texts whose counts a ServerTokenizer keeps
_AT_ONCE = 8


class TokenCounter(Protocol):
    """Counts plain text: no special tokens are added, and none are recognised inside the text."""

    @property
    def name(self) -> str: ...

    @property
    def exact(self) -> bool:
        """False: an estimate by another model's tokenizer, and the receipt says so."""

    def count(self, text: str) -> int: ...

    def count_many(self, texts: Sequence[str]) -> list[int]: ...


class Guard(Protocol):
    """Knows whether a server is worth asking: `rag.llm.breaker`."""

    def check(self) -> None:
        """Raises ModelUnavailable where it is not."""

    def failed(self, error: UpstreamError) -> None: ...


class FileTokenizer:
    """A `tokenizer.json` (Hugging Face format). Thread-safe.

    Added tokens are never recognised: text that spells `<|im_end|>` is encoded as the characters it consists of and cannot
    become the control token. Who needs control tokens finds their ids in `added`.
    """

    def __init__(self, path: Path, *, exact: bool = True) -> None:
        if not path.is_file():
            raise ModelUnavailable(f"No tokenizer at {path}.", hint="Name a tokenizer.json, or run `thriftrag models pull`.")
        try:
            self._tokenizer, added = _without_added_tokens(path)
        except Exception as error:  # the library raises bare Exception for a file it cannot read
            raise ModelCorrupt(f"{path} is not a tokenizer.json: {error}", hint="Fetch it again.") from error
        self.added = {token.content: number for number, token in added.items()}
        self.special_ids = frozenset(number for number, token in added.items() if token.special)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.path = path
        self.name = f"{path.parent.name}/{path.name}"
        self.exact = exact

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [len(row.ids) for row in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ordinary tokens. Bytes that are no character come out as U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _without_added_tokens(path: Path) -> tuple[Tokenizer, dict[int, AddedToken]]:
    """The tokenizer that sees only ordinary text, and what the file had added."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    added = tokenizer.get_added_tokens_decoder()
    tokenizer.encode_special_tokens = True
    if any(not token.special for token in added.values()):
        # The switch above covers special tokens only; the others have to be taken out, which costs a second parse.
        table = json.loads(path.read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_str(json.dumps({**table, "added_tokens": []}))
    return tokenizer, added


class ByteEstimate:
    """Where no tokenizer is at hand: one token for three bytes, which is more than most texts have."""

    name = "bytes/3"
    exact = False

    def count(self, text: str) -> int:
        return math.ceil(len(text.encode()) / 3)

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]


class ServerTokenizer:
    """Asks the model's server: POST /tokenize as vLLM or as llama.cpp understands it, each text once. Thread-safe.

    The first count finds out what the server speaks. If it has no such endpoint, `estimate` counts from then on and `exact`
    is False. Opening it does not touch the network.
    """

    def __init__(self, base_url: str, *, model: str, estimate: Callable[[], TokenCounter], api_key: str = "",
                 timeout_s: float = 10.0, guard: Guard | None = None) -> None:
        """`estimate` is called when it is needed, as often as that. `guard`: of the server, shared with who else asks it."""
        self._root = base_url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout_s = timeout_s
        self._guard = guard
        self._estimate = estimate
        self._dialect: Dialect | None = None
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._client: httpx.Client | None = None
        self._lock = Lock()
        self.name = f"{model} at {public_url(base_url)}"

    @property
    def exact(self) -> bool:
        """True until the server has shown that it cannot count."""
        return self._dialect != "none"

    def count(self, text: str) -> int:
        """Raises ModelUnavailable if the server does not answer."""
        known = self._recall(text)
        if known is not None or not text:
            return known or 0
        counted = self._count_plain(text)
        return self._estimate().count(text) if counted is None else self._remember(text, counted)

    def count_many(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        first = self.count(texts[0])            # settles what the server speaks before the others ask
        if self._dialect == "none":
            return self._estimate().count_many(texts)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return [first, *pool.map(self.count, texts[1:])]

    def count_prompt(self, messages: Sequence[Mapping[str, str]]) -> int | None:
        """Tokens of a whole chat prompt, the server's template included; None if it cannot say."""
        key = "\0chat" + json.dumps(list(messages))
        known = self._recall(key)
        if known is not None:
            return known
        self.count("a")                         # settles what the server speaks
        counted: int | None = None
        if self._dialect == "vllm":
            counted = _number(self._ask("/tokenize", {"model": self._model, "messages": list(messages),
                                                      "add_generation_prompt": True}), "count")
        elif self._dialect == "llama.cpp":
            prompt = self._ask("/apply-template", {"messages": list(messages)}).get("prompt")
            if isinstance(prompt, str):
                counted = _length(self._ask("/tokenize", {"content": prompt, "add_special": True, "parse_special": True}))
        return None if counted is None else self._remember(key, counted)

    def count_offline(self, text: str) -> int:
        """Without asking: what an earlier count said, else the estimate."""
        known = self._recall(text)
        return self._estimate().count(text) if known is None else known

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = None

    def _count_plain(self, text: str) -> int | None:
        if self._dialect in (None, "vllm"):
            body = {"model": self._model, "prompt": text, "add_special_tokens": False}
            counted = _number(self._ask("/tokenize", body), "count")
            if counted is not None:
                self._dialect = "vllm"
                return counted
        if self._dialect in (None, "llama.cpp"):
            counted = _length(self._ask("/tokenize", {"content": text, "add_special": False, "parse_special": False}))
            if counted:                         # a server that ignores what it does not know answers with no tokens
                self._dialect = "llama.cpp"
                return counted
        self._dialect = "none"
        return None

    def _ask(self, path: str, body: Mapping[str, object]) -> Mapping[str, object]:
        """The answer's object; empty if the server refuses or answers with something else."""
        if self._guard is None:
            return self._posted(path, body)
        self._guard.check()
        try:
            return self._posted(path, body)
        except ModelUnavailable as error:
            self._guard.failed(error)
            raise

    def _posted(self, path: str, body: Mapping[str, object]) -> Mapping[str, object]:
        import httpx

        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=self._timeout_s, headers=self._headers)
            client = self._client
        try:
            response = client.post(self._root + path, json=dict(body))
        except httpx.HTTPError as error:
            raise ModelUnavailable(f"Nothing counts tokens at {public_url(self._root)}: {type(error).__name__}.",
                                   hint="Start the server, or check reader_url.") from error
        if response.status_code in (502, 503, 504):
            raise ModelUnavailable(f"{public_url(self._root)} is not ready: it answered {response.status_code}.",
                                   hint="Wait until the server has loaded the model.")
        try:
            table = response.json() if response.is_success else {}
        except ValueError:
            return {}
        return table if isinstance(table, dict) else {}

    def _recall(self, key: str) -> int | None:
        with self._lock:
            return self._counts.get(key)

    def _remember(self, key: str, count: int) -> int:
        with self._lock:
            self._counts[key] = count
            while len(self._counts) > _REMEMBERED:
                self._counts.popitem(last=False)
        return count


def public_url(url: str) -> str:
    """`url` without user, password, query and fragment: fit for a message."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def _number(answer: Mapping[str, object], key: str) -> int | None:
    value = answer.get(key)
    return value if isinstance(value, int) else None


def _length(answer: Mapping[str, object]) -> int | None:
    tokens = answer.get("tokens")
    return len(tokens) if isinstance(tokens, list) else None
