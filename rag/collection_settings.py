"""Settings of one collection: `settings.toml` in its folder, above the user's config.toml and below variables and flags.

Only settings that may differ from one question to the next can stand there (`rag.settings.query_names`): what shaped the
index is fixed when documents are read in. `thriftrag tune --apply` writes the file; people may write it as well.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from rag.errors import ConfigError, StorageError
from rag.settings import Settings, changed, chosen

FILE = "settings.toml"


def layered(settings: Settings, folder: Path) -> Settings:
    """`settings` with what the collection in `folder` says on top, except where a variable, a flag or code has decided.

    Raises:
        ConfigError: the file cannot be read, or holds an unknown, fixed or impossible setting. The message names the file.
    """
    path = folder / FILE
    if not path.is_file():
        return settings
    table = read(path)
    checked = changed(settings, table, where=str(path))
    return changed(settings, {name: getattr(checked, name) for name in table if not chosen(settings, name)}, where=str(path))


def read(path: Path) -> dict[str, object]:
    """The file's names and values as they stand there. Raises ConfigError if it is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}",
                          hint="Correct the line it names, or delete the file: the collection does without it.") from error


def write(folder: Path, values: Mapping[str, str | int | float], *, comments: Sequence[str] = ()) -> Path:
    """Writes `values` into the collection's file, keeps what else is set there, and returns its path. Comments go on top.

    Raises:
        ConfigError: the file that is there cannot be read. StorageError: the disk refused; the old file is as it was.
    """
    path = folder / FILE
    kept = read(path) if path.is_file() else {}
    lines = [f"# {' '.join(comment.split())}" for comment in comments]
    lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in {**kept, **values}.items()]
    aside = path.with_name(f"{FILE}.part")
    try:
        aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.",
                           hint="Check the folder and the disk.") from error
    return path
