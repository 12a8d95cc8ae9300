"""What data sets say about their licence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def licences(folders: Sequence[Path]) -> dict[str, str]:
    """The first line below `## Licence` of each data set's README, by name."""
    found = {}
    for folder in folders:
        readme = folder / "README.md"
        lines = readme.read_text(encoding="utf-8").splitlines() if readme.is_file() else []
        if "## Licence" in lines[:-1]:
            found[folder.name] = lines[lines.index("## Licence") + 1].strip()
    return found
