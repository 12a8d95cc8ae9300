"""Makes the clusters of a snapshot, or brings those of an older one up to date: what did not change costs nothing.

- A new text goes to the cluster with the nearest centroid; one that is gone leaves its cluster.
- A summary is made anew when its cluster has grown by `GROWN`, or when a text that it was written from is gone.
- A group is divided anew when the mean distance of its texts to their centroids has risen by `DRIFTED`, when it has become large
  enough to be divided at all, or when the plan or the encoder changed.

(The two shares: our choice, the paper has no updates.) What a model wrote is kept at once under a hash of all that it was shown,
so that a run which ends early, because the model's server is gone, loses nothing. The clustering itself is published at the end, in
one transaction; until then the one before serves.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from indexers import clusters_store as stored
from indexers import store
from indexers.clusters import Cluster, Clustering, Group, Plan
from indexers.clusters_extract import Count, Encode, extracted
from indexers.clusters_labels import TEXTS, Weigh, labelled
from indexers.clusters_partition import Partition, assigned, candidates, divided
from indexers.encoders import Vectors
from indexers.segments import Numbers
from indexers.snapshot import Snapshot
from rag.errors import InputError
from rag.filters.values import field_key
from rag.types import Chunk, FieldValue, OnProgress, Progress, no_progress

GROWN = 0.2
DRIFTED = 0.15
# Texts of a cluster that its summary is made from, nearest to the centroid first.
SHOWN = 64
# Texts farther from their centroid than the mean by this many standard deviations are kept as quotations, so many of a group.
_FAR = 2.0
_OUTLIERS = 3
_BLOCK = 8192
# Tokens of the shortest summary worth having.
_LEAST = 12
# Distances are of vectors rounded to 11 bits.
_NOISE = 1e-3


@dataclass(frozen=True, slots=True)
class Written:
    """One summary and what it took. `text` is empty where the model said nothing that the texts support."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Writer(Protocol):
    """A model that writes summaries."""

    @property
    def name(self) -> str:
        """Of the model and of the way it is asked: what was written under another name is not used."""

    def __call__(self, members: Sequence[Chunk], *, tokens: int) -> Written:
        """A summary of about `tokens`. `members`: nearest to the centroid first; as many are read as have room. Raises
        UpstreamError."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What building needs of models: vectors of sentences, tokens as the reader counts them, weights of words, and a writer where
    one is wanted."""

    encode: Encode
    count: Count
    weigh: Weigh
    writer: Writer | None = None


@dataclass(slots=True)
class Report:
    """What one build did. `llm_calls`: summaries that a model was asked for; `recalled`: those that were known from before."""

    groups: int = 0
    clusters: int = 0
    texts: int = 0
    divided: int = 0            # groups that k-means ran in
    refreshed: int = 0          # clusters whose summary was made or made anew
    assigned: int = 0           # texts that joined an existing cluster
    left_out: int = 0           # texts without the field
    llm_calls: int = 0
    recalled: int = 0
    unsupported: int = 0        # summaries of the model that were not taken
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def to_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(slots=True)
class _Build:
    snapshot: Snapshot
    plan: Plan
    tools: Tools
    db: sqlite3.Connection
    on_progress: OnProgress
    cancelled: Callable[[], bool]
    report: Report = field(default_factory=Report)


def build(folder: Path, snapshot: Snapshot, plan: Plan, *, tools: Tools, again: bool = False, on_progress: OnProgress = no_progress,
          cancelled: Callable[[], bool] = lambda: False) -> Report:
    """Publishes the clustering of `plan` for this snapshot, from the one of that name where its parts still hold. `again`: divides
    every group anew. A collection without texts gets a clustering without clusters. Ends early when `cancelled`: then nothing is
    published, and summaries are kept.

    Raises:
        InputError: no text has the field. Locked, SnapshotMismatch: as `clusters_store.building`. UpstreamError: from the writer.
    """
    since = time.monotonic()
    with stored.building(folder) as db:
        before = stored.load(db, plan.name, folder=folder)
        run = _Build(snapshot, plan, tools, db, on_progress, cancelled)
        groups = _groups(run)
        usable = None if again or before is None or not _continues(before, plan, snapshot) else before
        parts = _divide(run, groups, usable)
        found = _summarised(run, parts)
        run.report.seconds = time.monotonic() - since
        if found is None:
            run.report.interrupted = True
            return run.report
        report = run.report
        report.groups, report.clusters, report.texts = len(parts), len(found), sum(group.texts for group, _ in parts)
        earlier = before or Clustering(plan, "", "", "", {}, ())
        stored.save(db, Clustering(
            plan, snapshot.id, snapshot.meta["encoder"], store.now(), {group.value: group for group, _ in parts}, tuple(found),
            seconds=earlier.seconds + report.seconds, prompt_tokens=earlier.prompt_tokens + report.prompt_tokens,
            completion_tokens=earlier.completion_tokens + report.completion_tokens))
        stored.prune_summaries(db, np.sort(snapshot.rows()))
    return report


def _continues(before: Clustering, plan: Plan, snapshot: Snapshot) -> bool:
    """Whether centroids and divisions of the older state still mean what the plan asks for."""
    return before.encoder == snapshot.meta["encoder"] and replace(before.plan, llm=plan.llm) == plan


def _groups(run: _Build) -> dict[str, Numbers]:
    """Rows of each group, ascending; groups in order of their values."""
    rows = np.sort(run.snapshot.rows())
    if not run.plan.group_by:
        return {"": rows} if len(rows) else {}
    key = field_key(run.plan.group_by)
    found: dict[str, list[int]] = {}
    for start in range(0, len(rows), _BLOCK):
        block = rows[start:start + _BLOCK].tolist()
        for row, fields in zip(block, run.snapshot.fields(block), strict=True):
            values = named(fields.get(key))
            run.report.left_out += not values
            for value in values:
                found.setdefault(value, []).append(row)
    if not found and len(rows):
        raise InputError(f"No text of collection {run.snapshot.folder.name!r} has a field {run.plan.group_by!r}.", field="group_by",
                         hint="`thriftrag documents show ID` shows the fields of a document; metadata are named as in --where.")
    return {value: np.asarray(found[value], np.int64) for value in sorted(found)}


def named(value: FieldValue) -> list[str]:
    """The groups that a document of this field value belongs to: as many as a list has values, none where it has none."""
    several = value if isinstance(value, tuple | list) else (value,)
    return list(dict.fromkeys(str(each) for each in several if each is not None and str(each).strip()))


def _divide(run: _Build, groups: Mapping[str, Numbers], before: Clustering | None) -> list[tuple[Group, list[Cluster]]]:
    known: dict[str, list[Cluster]] = {}
    for cluster in before.clusters if before else ():
        known.setdefault(cluster.group, []).append(cluster)
    documents = _documents(run.snapshot)
    parts = []
    for done, (value, rows) in enumerate(groups.items()):
        run.on_progress(Progress("cluster", done, len(groups), "groups", value))
        texts = len(np.unique(documents[1][np.searchsorted(documents[0], rows)]))
        old = None if before is None else before.groups.get(value)
        parts.append(_one(run, value, rows, texts, old, known.get(value, [])))
    run.on_progress(Progress("cluster", len(groups), len(groups), "groups"))
    return parts


def _one(run: _Build, value: str, rows: Numbers, texts: int, old: Group | None, known: list[Cluster]
         ) -> tuple[Group, list[Cluster]]:
    if old is not None and known:
        members = np.concatenate([cluster.rows for cluster in known])
        if len(members) == len(rows) and np.array_equal(np.sort(members), rows):
            return old, known
        joined = _joined(run, rows, texts, old, known)
        if joined is not None:
            return joined
    vectors = _vectors(run.snapshot, rows)
    k_max = max(2, run.plan.budget // max(1, run.plan.tokens))
    found = divided(vectors, k=run.plan.k, k_max=k_max, seed=run.plan.seed)
    run.report.divided += 1
    clusters = [Cluster(value, number + 1, _nearest_first(rows, found, number), centroid)
                for number, centroid in enumerate(found.centroids)]
    return Group(value, texts, found.spread, found.silhouette, _outliers(rows, found)), clusters


def _joined(run: _Build, rows: Numbers, texts: int, old: Group, known: list[Cluster]) -> tuple[Group, list[Cluster]] | None:
    """The old clusters with the new texts and without those that are gone; None where they no longer fit."""
    if len(known) == 1 and old.texts <= 4 and candidates(len(rows), k=run.plan.k, k_max=len(rows)):
        return None
    vectors = _vectors(run.snapshot, rows)
    centroids: Vectors = np.stack([cluster.centroid for cluster in known])
    labels, _ = assigned(vectors, centroids)
    new = np.ones(len(rows), bool)
    for place, cluster in enumerate(known):
        kept = np.isin(rows, cluster.rows)
        labels[kept], new[kept] = place, False
    closeness = np.einsum("ij,ij->i", vectors.astype(np.float32), centroids[labels])
    now = Partition(centroids, labels, closeness)
    if now.spread > (1 + DRIFTED) * old.spread + _NOISE:
        return None
    run.report.assigned += int(new.sum())
    clusters = [replace(cluster, rows=_nearest_first(rows, now, place)) for place, cluster in enumerate(known)
                if (labels == place).any()]
    return replace(old, texts=texts, outliers=_outliers(rows, now)), clusters


def due(cluster: Cluster, *, writer: str) -> bool:
    """Whether its summary has to be made: there is none, or it is no longer one of its texts, or not by who is to write it."""
    if not cluster.sentences or len(cluster.rows) >= (1 + GROWN) * cluster.size:
        return True
    return not np.isin(cluster.written, cluster.rows).all() or cluster.by != writer


def _summarised(run: _Build, parts: Sequence[tuple[Group, list[Cluster]]]) -> list[Cluster] | None:
    """All clusters with their summaries; None when it was cancelled."""
    name = run.tools.writer.name if run.tools.writer else ""
    total, done, found = sum(len(clusters) for _, clusters in parts), 0, []
    for _, clusters in parts:
        wanted = [due(cluster, writer=name) for cluster in clusters]
        made, shown = [], []
        for cluster, wants in zip(clusters, wanted, strict=True):
            if run.cancelled():
                return None
            run.on_progress(Progress("summarise", done, total, "clusters", cluster.group))
            members = run.snapshot.chunks(cluster.rows[:SHOWN].tolist()) if any(wanted) else []
            made.append(_written(run, cluster, members) if wants else cluster)
            shown.append(members[:TEXTS])
            done += 1
        found += _with_labels(run, made, shown) if any(wanted) else made
    run.on_progress(Progress("summarise", total, total, "clusters"))
    return found


def _written(run: _Build, cluster: Cluster, members: Sequence[Chunk]) -> Cluster:
    rows = cluster.rows[:SHOWN]
    said = sum(run.tools.count([chunk.text for chunk in members]))
    tokens = room(said, at_most=run.plan.tokens)
    sentences = extracted(members, rows.tolist(), tokens=tokens, encode=run.tools.encode, count=run.tools.count)
    text, writer = "", run.tools.writer
    # What is no longer than a summary is its own.
    if writer is not None and said > tokens:
        text = _by_model(run, writer, members, rows, tokens=tokens)
    run.report.refreshed += 1
    return replace(cluster, sentences=sentences, summary=text, by=writer.name if writer else "", written=np.sort(rows),
                   size=len(cluster.rows))


def room(said: int, *, at_most: int) -> int:
    """Tokens of a summary of texts of `said` tokens: a quarter of them, or a few texts would be shown nearly whole."""
    return min(at_most, max(_LEAST, said // 4))


def _by_model(run: _Build, writer: Writer, members: Sequence[Chunk], rows: Numbers, *, tokens: int) -> str:
    key = digest(writer.name, tokens, members)
    known = stored.summary(run.db, key)
    if known is not None:
        run.report.recalled += 1
        return known
    made = writer(members, tokens=tokens)
    stored.keep_summary(run.db, key, made.text, rows=rows.tolist())
    run.report.llm_calls += 1
    run.report.unsupported += not made.text
    run.report.prompt_tokens += made.prompt_tokens
    run.report.completion_tokens += made.completion_tokens
    return made.text


def digest(writer: str, tokens: int, members: Sequence[Chunk]) -> bytes:
    """What a summary depends on: who writes it, how long, and the texts in their order."""
    shown = [writer, tokens, [hashlib.sha256(chunk.text.encode("utf-8", "replace")).hexdigest() for chunk in members]]
    return hashlib.sha256(json.dumps(shown).encode()).digest()


def _with_labels(run: _Build, clusters: Sequence[Cluster], shown: Sequence[Sequence[Chunk]]) -> list[Cluster]:
    labels = labelled([[chunk.text for chunk in members] for members in shown],
                      [cluster.rows[:len(members)].tolist() for cluster, members in zip(clusters, shown, strict=True)],
                      weigh=run.tools.weigh)
    return [replace(cluster, labels=words) for cluster, words in zip(clusters, labels, strict=True)]


def _nearest_first(rows: Numbers, found: Partition, place: int) -> Numbers:
    inside = np.flatnonzero(found.labels == place)
    return rows[inside[np.argsort(-found.closeness[inside], kind="stable")]]


def _outliers(rows: Numbers, found: Partition) -> tuple[int, ...]:
    distances = 1 - found.closeness
    if len(found.centroids) < 2:
        return ()
    far = np.flatnonzero(distances > distances.mean() + _FAR * distances.std() + _NOISE)
    return tuple(int(rows[place]) for place in far[np.argsort(-distances[far], kind="stable")][:_OUTLIERS])


def _documents(snapshot: Snapshot) -> tuple[Numbers, Numbers]:
    """Rows of all segments, ascending, and the document of each."""
    empty = np.zeros(0, np.int64)
    rows = np.concatenate([empty, *(segment.rows for segment in snapshot.segments)])
    numbers = np.concatenate([empty, *(segment.documents for segment in snapshot.segments)])
    order = np.argsort(rows)
    return rows[order], numbers[order]


def _vectors(snapshot: Snapshot, rows: Numbers) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    """As stored, in half precision: a million of them have to fit into memory."""
    found = np.zeros((len(rows), snapshot.dimension), np.float16)
    for start, block in _blocks(rows):
        found[start:start + len(block)] = snapshot.vectors(block.tolist())
    return found


def _blocks(rows: Numbers) -> Iterator[tuple[int, Numbers]]:
    for start in range(0, len(rows), _BLOCK):
        yield start, rows[start:start + _BLOCK]
