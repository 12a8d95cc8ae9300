"""Settings as one process hands them to another: every value, with where it came from.

A child reads no file and no environment of its own, and what nobody chose stays a default there: else a collection's own settings
(`rag.collection_settings`) would lose against it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rag import settings as configuration
from rag.settings import Settings


def settings_row(settings: Settings) -> dict[str, Any]:
    """Settings as JSON, secrets included: for a pipe, never for a command line."""
    values = {name: getattr(settings, name) for name in configuration.names()}
    return {"values": {name: str(value) if isinstance(value, Path) else value for name, value in values.items()},
            "origin": dict(settings.origin)}


def settings_of(row: dict[str, Any]) -> Settings:
    """What `settings_row` was made of."""
    values: dict[str, Any] = {**row["values"], "home": Path(row["values"]["home"]), "models": Path(row["values"]["models"])}
    return Settings(**values, origin=row["origin"])
