"""Which origins one search asks: those of its mode, less those that the collection or the query cannot serve; and in what words
that is told. Term weights know Latin script alone and give stop words none: what they cannot search, words or meaning do.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from indexers.encoders import Encoder, term_weights
from indexers.snapshot import Snapshot
from rag.errors import SnapshotMismatch
from rag.types import Mode

if TYPE_CHECKING:
    from indexers.encoders.term_weights import TermWeights
    from indexers.impacts import Query

ORIGINS = ("dense", "bm25", "sparse")
_BY = {"dense": "by meaning (dense)", "bm25": "by words (bm25)"}
# Less modifiers, which belong to no script.
_LETTERS = frozenset({"Lu", "Ll", "Lt", "Lo"})
_LATIN = "Latin script"
_SCRIPTS = {"CJK": "Chinese characters", "HIRAGANA": "Japanese script", "KATAKANA": "Japanese script"}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is searched. `origins` is never empty; `terms` is the query as sparse search takes it, None where that is not asked.
    `notes`: what differs from what was asked for, in sentences for users."""

    origins: tuple[str, ...]
    terms: Query | None = None
    notes: tuple[str, ...] = ()


def planned(question: str, *, mode: Mode, origins: Sequence[str], snapshot: Snapshot, encoder: Encoder) -> Plan:
    """The plan for one question; a note where the encoder reads only its beginning. See `_planned`."""
    plan = _planned(question, mode=mode, origins=origins, snapshot=snapshot, encoder=encoder)
    # No text has more tokens than characters, but for two around it.
    if "dense" not in plan.origins or len(question) + 2 <= encoder.max_tokens:
        return plan
    [tokens] = encoder.count([question])
    if tokens <= encoder.max_tokens:
        return plan
    note = f"The question has {tokens} encoder tokens; its first {encoder.max_tokens} were searched by meaning."
    return replace(plan, notes=(*plan.notes, note))


def _planned(question: str, *, mode: Mode, origins: Sequence[str], snapshot: Snapshot, encoder: Encoder) -> Plan:
    """The origins for one question. `origins`: what hybrid fuses; those that the collection lacks are left out of it.

    A query without any term is searched by meaning where its words are stop words, by words where its script, or that of most of
    its letters, is not Latin; hybrid goes on with its other origins.

    Raises:
        SnapshotMismatch: only sparse search is left to ask, and the collection holds no term weights, or the encoder gives none,
            or those of another model. Hybrid leaves sparse out of it and says why.
    """
    wanted = tuple(origins) if mode == "hybrid" else (mode,)
    if "sparse" not in wanted:
        return Plan(wanted)
    others = tuple(origin for origin in wanted if origin != "sparse")
    if not snapshot.terms:
        if others:
            return Plan(others)
        raise _lacking(snapshot, encoder)
    try:
        weighing = weights_of(snapshot, encoder)
    except SnapshotMismatch as error:
        if not others:
            raise
        return Plan(others, notes=(f"{error.message} Sparse search was left out. {error.hint}",))
    terms = weighing.query(question, statistics=snapshot.statistics)
    foreign = foreign_script(question)
    if readable(question, terms):
        missed = f"Term weights do not cover {foreign}: sparse search read only the rest of the query."
        return Plan(wanted, terms, (missed,) if foreign and not others else ())
    why = (f"Term weights do not cover {foreign}, in which the query is written" if foreign
           else "The query has no word that carries a term weight, only common ones")
    if others:
        return Plan(others, notes=(f"{why}: sparse search was left out.",))
    instead = "bm25" if foreign else "dense"
    return Plan((instead,), notes=(f"{why}: it was searched {_BY[instead]} instead.",))


def weights_of(snapshot: Snapshot, encoder: Encoder) -> TermWeights:
    """The encoder, as the one that gives the term weights which the collection holds.

    Raises:
        SnapshotMismatch: it gives none, or those of another model.
    """
    found, name = term_weights.of(encoder), snapshot.folder.name
    if found is None:
        raise SnapshotMismatch(f"Collection {name!r} holds term weights of {snapshot.terms}; the encoder {encoder.name} has none.",
                               hint="Use the embedder and the weights that it was made with, or "
                                    f"`thriftrag collections rebuild {name}`, or --mode dense or bm25.", code="no_term_weights")
    if found.terms.name != snapshot.terms:
        raise SnapshotMismatch(f"Collection {name!r} holds term weights of {snapshot.terms}, not of {found.terms.name}.",
                               hint=f"Run `thriftrag collections rebuild {name}`, or use --mode dense or bm25.")
    return found


def _lacking(snapshot: Snapshot, encoder: Encoder) -> SnapshotMismatch:
    name = snapshot.folder.name
    if term_weights.of(encoder) is None:
        hint = f"There are none for its encoder {encoder.name}: use --mode hybrid, dense or bm25."
    else:
        hint = f"`thriftrag collections rebuild {name}` adds them (setting sparse = auto). Or use --mode hybrid, dense or bm25."
    return SnapshotMismatch(f"Collection {name!r} holds no term weights, which sparse search reads.", hint=hint,
                            code="no_term_weights")


def readable(question: str, terms: Query) -> bool:
    """Whether term weights can stand for a question: it has a term, and at least half of its letters are Latin. A name in Latin
    script among Chinese would otherwise be all that is searched."""
    scripts = [_script(letter) for letter in question]
    latin, foreign = scripts.count(_LATIN), sum(script not in ("", _LATIN) for script in scripts)
    return len(terms[0]) > 0 and latin >= foreign


def foreign_script(text: str) -> str:
    """The script of the first letter that is not Latin, as users call it; empty if all are."""
    return next((script for letter in text if (script := _script(letter)) not in ("", _LATIN)), "")


def _script(letter: str) -> str:
    """As users call it; empty for what is no letter."""
    # Compatibility forms, such as full-width letters, are what they stand for.
    plain = unicodedata.normalize("NFKC", letter)[0]
    if unicodedata.category(plain) not in _LETTERS:
        return ""
    name = unicodedata.name(plain, "UNKNOWN").split()[0]
    return _LATIN if name == "LATIN" else _SCRIPTS.get(name, f"{name.title()} script")
