"""The page's files, read once: only what ships with the package can be asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

INDEX = "index.html"
_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
          ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    media_type: str
    tag: str            # changes with the content: an entity tag


@cache
def page() -> dict[str, File]:
    """By name."""
    found = {}
    for item in files("api.web").joinpath("page").iterdir():
        media_type = _TYPES.get(f".{item.name.rpartition('.')[2]}")
        if media_type is not None:
            body = item.read_bytes()
            found[item.name] = File(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:20]}"')
    return found
