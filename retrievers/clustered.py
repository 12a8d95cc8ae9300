"""Cluster summaries as candidates: passages that stand for many, each with its share of the texts and its members for citations.

What is shown is counted over the members that live and that the filter allows: a summary is served only if every text that it was
written from is among them. Where one is gone, or may not be read, the first sentences of the nearest members that remain stand in
its place. So nothing of a deleted or a filtered text is ever shown, whatever the file of clusters still holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from indexers import clusters_store as stored
from indexers import lexical
from indexers.clusters import WHOLE, Cluster, Clustering, Group
from indexers.encoders import Vectors
from indexers.segments import Numbers
from indexers.sentences import split
from indexers.snapshot import Snapshot
from rag.errors import InputError, SnapshotError
from rag.filters import Filter
from rag.types import Chunk, FieldValue, ScoredChunk, Span

ORIGIN = "clusters"
_ID = "cluster:"
Mask = NDArray[np.bool_]
# Members that a citation is looked for in, and that stand in for a summary that may not be shown.
_CITED = 64
_INSTEAD = 3


@dataclass(frozen=True, slots=True)
class Summaries:
    """Candidates for a question about all texts, best first: summaries, then single texts that no cluster stands for.

    `quotes`: places of those. `groups`: values of the field that they are of, none in a clustering of everything. `texts`: in
    scope, and `outdated`: those that came after the clusters were made.
    """

    hits: tuple[ScoredChunk, ...]
    quotes: frozenset[int]
    clustering: str
    groups: tuple[str, ...]
    texts: int
    outdated: int

    def facts(self) -> dict[str, object]:
        return {"clustering": self.clustering, "groups": list(self.groups[:5]), "summaries": len(self.hits) - len(self.quotes),
                "quotes": len(self.quotes), "texts": self.texts, "outdated": self.outdated}


def is_summary(chunk: Chunk) -> bool:
    """Whether it stands for other chunks. Its metadata then tell which: `rows`."""
    return chunk.id.startswith(_ID)


@dataclass(frozen=True, slots=True)
class Shown:
    """One cluster for people: `texts` of the `total` of its group, and the chunks nearest to its middle, by id."""

    group: str
    number: int
    texts: int
    total: int
    labels: tuple[str, ...]
    method: str
    text: str
    members: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.texts / self.total

    def to_dict(self) -> dict[str, object]:
        row: dict[str, object] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**row, "share": round(self.share, 4), "labels": list(self.labels), "members": list(self.members)}


class Clustered:
    """The clusterings of one snapshot. Thread-safe."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._lock = Lock()
        self._revision = -1
        self._loaded: dict[str, Clustering] = {}
        self._documents = _Documents(snapshot)
        self._live = _mask(snapshot, None)

    @property
    def there(self) -> bool:
        """Whether clusters were ever made; a few microseconds."""
        return stored.exists(self._snapshot.folder)

    def revision(self) -> int:
        """Grows with each change; -1 where there is no file. Raises as `clusters_store.reading`."""
        if not stored.exists(self._snapshot.folder):
            return -1
        with stored.reading(self._snapshot.folder) as db:
            return stored.revision(db)

    def clusterings(self) -> Mapping[str, Clustering]:
        """All of them by name; none where none were made.

        Raises:
            SnapshotCorrupt, SnapshotMismatch: the file is damaged, or of another format.
        """
        folder = self._snapshot.folder
        if not stored.exists(folder):
            return {}
        with self._lock, stored.reading(folder) as db:
            now = stored.revision(db)
            if now != self._revision:
                found = {name: stored.load(db, name, folder=folder) for name in stored.names(db)}
                self._loaded = {name: each for name, each in found.items() if each is not None}
                self._revision = now
            return self._loaded

    def find(self, question: str, *, vector: Vectors | None, where: Filter | None = None, k: int = 24) -> Summaries | None:
        """The best `k` candidates in scope; None where there are no clusters, or `where` leaves no text in any.

        In scope are the groups that the question names, or the one group that `where` leaves; else the clusters of everything; else
        all groups. Best is what stands for most texts and is near to the question: share of the texts in scope times (1 + cosine).
        """
        allowed = self._live if where is None else _mask(self._snapshot, where)
        scoped = _scope(self.clusterings(), question, allowed, live=self._live)
        if scoped is None:
            return None
        clustering, groups = scoped
        wanted = frozenset(groups)
        cut = [_cut(cluster, allowed) for cluster in clustering.clusters if cluster.group in wanted]
        clusters = [cluster for cluster in cut if len(cluster.rows)]
        if not clusters:
            return None
        rows = np.unique(np.concatenate([cluster.rows for cluster in clusters]))
        documents, total = self._documents, self._documents.count(rows)
        near = vector is not None and clustering.encoder == self._snapshot.meta["encoder"]
        scored = []
        for cluster in clusters:
            cosine = max(0.0, float(cluster.centroid @ vector)) if near and vector is not None else 0.0
            scored.append((documents.count(cluster.rows) / total * (1 + cosine), cluster))
        scored.sort(key=lambda one: (-one[0], one[1].group, one[1].number))
        hits = []
        sizes = {group: documents.count(np.concatenate([cluster.rows for cluster in its]))
                 for group, its in _by_group(clusters).items()}
        for score, cluster in scored[:k]:
            chunk = self._chunk(clustering, cluster, documents.count(cluster.rows), sizes[cluster.group],
                                named=len(groups) > 1)
            hits.append(ScoredChunk(chunk, score, {ORIGIN: score}))
        quotes = self._quotes(clustering, groups, allowed, total) if len(groups) == 1 else []
        return Summaries(tuple(hits + quotes), frozenset(range(len(hits), len(hits) + len(quotes))), clustering.name,
                         tuple(group for group in groups if group), total, _outdated(clustering, groups, allowed, where))

    def shown(self, name: str, *, group: str | None = None) -> list[Shown]:
        """The clusters of a clustering that have a text left, of all groups or of one, as their summaries would be served."""
        clustering, documents, allowed = self.clusterings()[name], self._documents, self._live
        found = []
        cut = [_cut(cluster, allowed) for cluster in clustering.clusters if group in (None, cluster.group)]
        for value, clusters in _by_group([cluster for cluster in cut if len(cluster.rows)]).items():
            total = documents.count(np.concatenate([cluster.rows for cluster in clusters]))
            for cluster in clusters:
                texts = documents.count(cluster.rows)
                chunk = self._chunk(clustering, cluster, texts, total, named=False)
                nearest = self._snapshot.chunks(cluster.rows[:_CITED].tolist())
                found.append(Shown(value, cluster.number, texts, total, cluster.labels, cluster.method, chunk.text,
                                   tuple(each.id for each in nearest)))
        return found

    def members(self, chunk: Chunk) -> list[Chunk] | None:
        """The chunks that a summary stands for and that still live, nearest to the middle first; None for any other chunk."""
        rows = chunk.metadata.get("rows")
        if not is_summary(chunk) or not isinstance(rows, tuple):
            return None
        return self._snapshot.chunks([int(row) for row in rows if row is not None and _held(np.asarray([int(row)]), self._live)[0]])

    def _chunk(self, clustering: Clustering, cluster: Cluster, texts: int, total: int, *, named: bool) -> Chunk:
        """The summary as a passage."""
        if cluster.summary:
            text, behind = cluster.summary, tuple(cluster.rows[:_CITED].tolist())
            spans = split(text, "en")
        else:
            text, spans, behind = self._quoted(cluster)
        share = f"{_percent(texts, total)} of {total}" if total > 1 else "1 text"
        heading = f"{cluster.group}: {share}" if named else share
        about: dict[str, FieldValue] = {
            "clustering": clustering.name, "group": cluster.group, "cluster": cluster.number, "texts": texts,
            "share": texts / total, "labels": cluster.labels, "method": cluster.method, "rows": behind}
        whole = f"{_ID}{clustering.name}:{cluster.group}"
        return Chunk(id=f"{whole}:{cluster.number}", doc_id=whole,
                     ordinal=2 * cluster.number,     # never two that follow each other: each has its own mark
                     text=text, span=(0, len(text)), sentences=spans, tokens=0, heading=heading,
                     source=f"{texts} of {total} texts" + (f" on {', '.join(cluster.labels)}" if cluster.labels else ""),
                     content_hash=f"{cluster.group}:{cluster.number}", metadata=about)

    def _quoted(self, cluster: Cluster) -> tuple[str, tuple[Span, ...], tuple[int, ...]]:
        """Sentences of members as one text, where they stand in it, and the row of each."""
        places = cluster.sentences or tuple((row, 0) for row in cluster.rows[:_INSTEAD].tolist())
        chunks = dict(zip([row for row, _ in places], self._snapshot.chunks([row for row, _ in places]), strict=True))
        pieces = [(row, chunks[row].sentence(index)) for row, index in places if index < len(chunks[row].sentences)]
        spans, at = [], 0
        for _, piece in pieces:
            spans.append((at, at + len(piece)))
            at += len(piece) + 1
        return " ".join(piece for _, piece in pieces), tuple(spans), tuple(row for row, _ in pieces)

    def _quotes(self, clustering: Clustering, groups: Sequence[str], allowed: Mask, total: int) -> list[ScoredChunk]:
        """The texts farthest from all clusters that may be shown."""
        wanted = [row for group in groups for row in _group(clustering, group).outliers
                  if _held(np.asarray([row]), allowed)[0]]
        found = []
        for place, chunk in enumerate(self._snapshot.chunks(wanted)):
            score = 1 / (total + 1 + place)
            found.append(ScoredChunk(replace(chunk, title="", heading=f"1 of {total}"), score, {ORIGIN: score}))
        return found


class _Documents:
    """Which document each row belongs to: shares are counted in documents, not in passages."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._numbers = np.full(_size(snapshot), -1, np.int64)
        for segment in snapshot.segments:
            self._numbers[segment.rows] = segment.documents

    def count(self, rows: Numbers) -> int:
        return len(np.unique(self._numbers[rows]))


def in_words(error: SnapshotError) -> str:
    return f"the clusters were left out: {error.message} {error.hint}".strip()


def missing(name: str) -> InputError:
    return InputError(f"Collection {name!r} has no clusters that could be searched.", field="mode", code="no_clusters",
                      hint=f"Make them with `thriftrag clusters build -c {name}`, or use another mode.")


def _size(snapshot: Snapshot) -> int:
    """One more than the largest row there ever was."""
    return int(snapshot.meta["next_row"])


def _mask(snapshot: Snapshot, where: Filter | None) -> Mask:
    """For each row whether it lives and `where` allows it."""
    found = np.zeros(_size(snapshot), bool)
    for segment, mask in zip(snapshot.segments, snapshot.allowed(where), strict=True):
        found[segment.rows if mask is None else segment.rows[mask]] = True
    return found


def _cut(cluster: Cluster, allowed: Mask) -> Cluster:
    """The cluster as it may be shown: members that are allowed, and what was written only where all that it is of are."""
    rows = cluster.rows[_held(cluster.rows, allowed)]
    whole = bool(_held(cluster.written, allowed).all())
    if len(rows) == len(cluster.rows) and whole:
        return cluster
    held = set(rows.tolist())
    return replace(cluster, rows=rows, summary=cluster.summary if whole else "", labels=cluster.labels if whole else (),
                   sentences=tuple(place for place in cluster.sentences if place[0] in held))


def _scope(clusterings: Mapping[str, Clustering], question: str, allowed: Mask, *, live: Mask
           ) -> tuple[Clustering, list[str]] | None:
    grouped = [each for name, each in sorted(clusterings.items()) if name != WHOLE]
    for clustering in grouped:
        groups = {group: np.concatenate([cluster.rows for cluster in its]) for group, its in _by_group(clustering.clusters).items()}
        there = [group for group, rows in groups.items() if _held(rows, allowed).any()]
        # A text of several groups is allowed with one of them: the group that is meant is the one that is left whole.
        whole = [group for group in there if _held(groups[group], allowed).sum() == _held(groups[group], live).sum()]
        chosen = next((found for found in (there, whole) if len(found) == 1), None) or _named(there, question)
        if chosen:
            return clustering, chosen
    if WHOLE in clusterings and clusterings[WHOLE].clusters:
        return clusterings[WHOLE], [""]
    for clustering in grouped:
        there = list(_by_group([cluster for cluster in clustering.clusters if _held(cluster.rows, allowed).any()]))
        if there:
            return clustering, there
    return None


def _by_group(clusters: Sequence[Cluster]) -> dict[str, list[Cluster]]:
    found: dict[str, list[Cluster]] = {}
    for cluster in clusters:
        found.setdefault(cluster.group, []).append(cluster)
    return found


def _held(rows: Numbers, mask: Mask) -> Mask:
    """Which of the rows the mask has. Clusters may be of a newer state than the snapshot: its rows are not in it."""
    known = rows < len(mask)
    known[known] = mask[rows[known]]
    return known


def _named(groups: Sequence[str], question: str) -> list[str]:
    """Groups all words of whose names the question has; of these the ones with most words."""
    asked = frozenset(lexical.words(question))
    words = {group: frozenset(lexical.words(group.replace("_", " "))) for group in groups}
    held = [group for group in groups if words[group] and words[group] <= asked]
    most = max((len(words[group]) for group in held), default=0)
    return [group for group in held if len(words[group]) == most]


def _group(clustering: Clustering, value: str) -> Group:
    return clustering.groups.get(value) or Group(value, 0, 0.0)


def _outdated(clustering: Clustering, groups: Sequence[str], allowed: Mask, where: Filter | None) -> int:
    """Texts that no cluster has. Told where it can be: for the clusters of everything, and for the group that a filter leaves."""
    if clustering.plan.group_by and where is None:
        return 0
    missing = allowed.copy()
    for cluster in clustering.clusters:
        missing[cluster.rows[cluster.rows < len(missing)]] = False
    return int(missing.sum()) if len(groups) <= 1 else 0


def _percent(part: int, of: int) -> str:
    share = 100 * part / of
    return f"{share:.0f}%" if share >= 1 else "under 1%"
