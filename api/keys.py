"""API keys: made once, shown once, kept only as a hash.

A key reads `trk_ID_SECRET`. The id finds its row; the secret holds 256 random bits, so that one SHA-256 is as good as a slow hash:
there is nothing to guess. Revoked keys keep their row, for the ledger names them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from api.database import Database, Row
from rag.errors import InputError

SCOPES = ("read", "write", "admin")
_TYPED = re.compile(r"trk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Compared with where there is no such id, so that an unknown id takes the time of a wrong secret.
_NOBODY = hashlib.sha256(b"nobody").digest()


@dataclass(frozen=True, slots=True)
class Key:
    """One key, without its secret. A limit of 0 sets none; no `collections` means all of the tenant's."""

    id: str
    name: str
    scopes: tuple[str, ...]
    tenant: str = ""
    collections: tuple[str, ...] = ()
    per_minute: int = 0
    at_once: int = 0
    tokens_per_day: int = 0
    usd_per_day: float = 0.0
    created: str = ""
    revoked: str | None = None

    def to_dict(self) -> dict[str, object]:
        row: dict[str, object] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**row, "scopes": list(self.scopes), "collections": list(self.collections)}

    def may(self, scope: str) -> bool:
        """admin may everything, write may read."""
        return "admin" in self.scopes or scope in self.scopes or (scope == "read" and "write" in self.scopes)

    def reaches(self, collection: str) -> bool:
        return not self.collections or collection in self.collections


# Who calls where no key is asked for: a person at this machine.
LOCAL = Key(id="local", name="local", scopes=("admin",))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a new key may do: see `Key`."""

    scopes: Sequence[str] = ("read",)
    tenant: str = ""
    collections: Sequence[str] = field(default_factory=tuple)
    per_minute: int = 0
    at_once: int = 0
    tokens_per_day: int = 0
    usd_per_day: float = 0.0


def create(database: Database, name: str, *, terms: Terms) -> tuple[Key, str]:
    """A new key and its text, which cannot be had again.

    Raises:
        InputError: a name, scope, tenant or collection that cannot be, or a negative limit.
    """
    _checked(name, terms)
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = Key(id=key_id, name=name, scopes=tuple(s for s in SCOPES if s in terms.scopes), tenant=terms.tenant,
              collections=tuple(sorted(set(terms.collections))), per_minute=terms.per_minute, at_once=terms.at_once,
              tokens_per_day=terms.tokens_per_day, usd_per_day=terms.usd_per_day, created=now())
    database.write(
        "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (key.id, key.name, _hash(secret), ",".join(key.scopes), key.tenant, ",".join(key.collections), key.per_minute, key.at_once,
         key.tokens_per_day, key.usd_per_day, key.created))
    return key, f"trk_{key_id}_{secret}"


def listed(database: Database) -> list[Key]:
    """All keys, revoked ones too, oldest first."""
    return [_key(row) for row in database.rows("SELECT * FROM keys ORDER BY created, id")]


def revoke(database: Database, key_id: str) -> Key:
    """Makes a key void at once; a key that is revoked already stays as it is.

    Raises:
        InputError: there is no such key.
    """
    database.write("UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (now(), key_id))
    found = database.rows("SELECT * FROM keys WHERE id = ?", (key_id,))
    if not found:
        raise InputError(f"There is no key {key_id!r}.", field="id", code="key_missing", hint="`thriftrag keys list` shows them.")
    return _key(found[0])


def check(database: Database, typed: str) -> Key | None:
    """The valid key that this text is, or None. Secrets are compared in constant time."""
    parts = _TYPED.fullmatch(typed)
    found = database.rows("SELECT * FROM keys WHERE id = ?", (parts.group(1),)) if parts else []
    kept = found[0]["hash"] if found else _NOBODY
    given = _hash(parts.group(2)) if parts else b""
    same = hmac.compare_digest(kept if isinstance(kept, bytes) else b"", given)
    return _key(found[0]) if same and found and found[0]["revoked"] is None else None


def exist(database: Database, *, valid: bool = False) -> bool:
    """Whether a key was ever made; `valid`: whether there is one that has not been revoked."""
    condition = " WHERE revoked IS NULL" if valid else ""
    return bool(database.rows(f"SELECT 1 FROM keys{condition} LIMIT 1"))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _key(row: Row) -> Key:
    return Key(
        id=str(row["id"]), name=str(row["name"]), scopes=_split(row["scopes"]), tenant=str(row["tenant"]),
        collections=_split(row["collections"]), per_minute=int(row["per_minute"] or 0), at_once=int(row["at_once"] or 0),
        tokens_per_day=int(row["tokens_per_day"] or 0), usd_per_day=float(row["usd_per_day"] or 0), created=str(row["created"]),
        revoked=None if row["revoked"] is None else str(row["revoked"]))


def _split(cell: object) -> tuple[str, ...]:
    return tuple(part for part in str(cell).split(",") if part)


def _checked(name: str, terms: Terms) -> None:
    what = "Use letters, digits, '-', '_' and '.', starting with a letter or digit, at most 64."
    for field_name, value in (("name", name), *(("tenant", t) for t in (terms.tenant,) if t),
                              *(("collections", c) for c in terms.collections)):
        if not _NAME.fullmatch(value):
            raise InputError(f"{value!r} cannot be used as {field_name}.", field=field_name, hint=what)
    wrong = [scope for scope in terms.scopes if scope not in SCOPES]
    if wrong or not terms.scopes:
        raise InputError(f"Unknown scope {wrong[0]!r}." if wrong else "A key needs a scope.", field="scopes",
                         hint=f"Use some of {', '.join(SCOPES)}.")
    for field_name in ("per_minute", "at_once", "tokens_per_day", "usd_per_day"):
        value_given = getattr(terms, field_name)
        if not 0 <= value_given < float("inf"):
            raise InputError(f"{field_name} = {value_given} is not possible.", field=field_name, hint="Use 0 (no limit) or more.")
