"""What the shell may complete. A completion that cannot be computed is no completion, never an error on the prompt."""

from __future__ import annotations

from collections.abc import Callable

from rag.errors import RagError


def collections(incomplete: str) -> list[str]:
    from rag.cli import session

    return _names(lambda: session.collection_names(session.settings()), incomplete)


def models(incomplete: str) -> list[str]:
    from rag.cli import session

    return _names(lambda: session.model_names(session.settings()), incomplete)


def selectors(incomplete: str) -> list[str]:
    from rag.settings import choices

    return _names(lambda: list(choices("selector")), incomplete)


def modes(incomplete: str) -> list[str]:
    from rag.settings import choices

    return _names(lambda: [*choices("mode"), "clustered"], incomplete)


def origins(incomplete: str) -> list[str]:
    """The last of a list with commas, after those before it."""
    from rag.settings import choices

    before, comma, last = incomplete.rpartition(",")
    given = before.split(",")
    return [f"{before}{comma}{name}" for name in choices("origins") if name.startswith(last) and name not in given]


def rewriters(incomplete: str) -> list[str]:
    from rag.settings import choices

    return _names(lambda: list(choices("rewriter")), incomplete)


def fusions(incomplete: str) -> list[str]:
    from rag.settings import choices

    return _names(lambda: list(choices("fusion")), incomplete)


def remembered(incomplete: str) -> list[str]:
    return [name for name in ("questions", "knowledge", "answers") if name.startswith(incomplete)]


def benches(incomplete: str) -> list[str]:
    from eval import bench

    return _names(bench.names, incomplete)


def _names(find: Callable[[], list[str]], incomplete: str) -> list[str]:
    try:
        return [name for name in find() if name.startswith(incomplete)]
    except (RagError, OSError):
        return []
