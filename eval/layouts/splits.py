"""Which files of a folder belong to a split, told by the words of their names: `hotpot_dev_distractor_v1.json` is dev."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rag.errors import InputError

_SAME = {"val": "dev", "valid": "dev", "validation": "dev", "development": "dev", "training": "train", "testing": "test"}
_SPLITS = frozenset({"train", "dev", "test", "trial"})


def of_split(files: Sequence[Path], split: str | None, *, folder: Path) -> list[Path]:
    """The files of the split; all of them without one.

    Raises:
        InputError: none is of that split.
    """
    if split is None:
        return list(files)
    wanted = _SAME.get(split.lower(), split.lower())
    found = [file for file in files if wanted in _words(file)]
    if not found:
        raise InputError(f"No data file in {folder} has {split!r} in its name.", field="split", code="dataset_missing",
                         hint=f"There are: {', '.join(file.name for file in files)}.")
    return found


def splits_of(files: Sequence[Path]) -> set[str]:
    """The splits that the names tell; several files of one split, or without any, belong together."""
    return {word for file in files for word in _words(file) & _SPLITS}


def _words(path: Path) -> set[str]:
    return {_SAME.get(word, word) for word in re.split(r"[^a-z0-9]+", path.name.lower())}
