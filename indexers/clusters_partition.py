"""k-means over unit vectors, and how many clusters.

    k0 = clip(round(sqrt(n / 2)), 2, k_max),  k_max = budget / tokens of a summary

Of the k in [2, k_max] that leave at least two texts a cluster, the one with the best silhouette (Rousseeuw 1987) on a sample wins,
the one nearest to k0 among equals. One cluster where n <= 4 or all texts are the same: there is nothing to divide.

FAISS does the k-means, spherical because cosine is what the vectors are compared by. It is given one thread and a seed, so equal
vectors in equal order are divided equally.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexers.dense_faiss import faiss, one_thread
from indexers.encoders import Vectors

Labels = NDArray[np.int64]

_ROUNDS = 20
_REDONE = 4
# Vectors that train a centroid, and that a silhouette is taken of: its time grows with their square.
_PER_CENTROID = 256
_SILHOUETTE = 1000
_BLOCK = 65_536
# Numbers of clusters that are tried at most.
_TRIED = 16
# Two texts are one if their vectors are: stored vectors are rounded to 11 bits.
_SAME = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Partition:
    """`centroids`: unit rows, shape (k, dimension), largest cluster first, none empty. `labels`: of each vector. `closeness`: its
    cosine to its centroid. `silhouette`: None of one cluster."""

    centroids: Vectors
    labels: Labels
    closeness: NDArray[np.float32]
    silhouette: float | None = None

    @property
    def spread(self) -> float:
        """Mean cosine distance to the centroid."""
        return float(np.mean(1 - self.closeness)) if len(self.closeness) else 0.0


def divided(vectors: NDArray[np.floating], *, k: int | None, k_max: int, seed: int) -> Partition:
    """Rows of shape (n >= 1, dimension) in `k` clusters, or as many as are worth having. Fewer where there are not enough texts."""
    tried = candidates(len(vectors), k=k, k_max=k_max)
    if not tried or _all_same(vectors):
        return _of(vectors, _unit(_mean(vectors)[None, :]))
    k0 = started(len(vectors), k_max=k_max)
    found = [_scored(_of(vectors, _centroids(vectors, each, seed=seed)), vectors, seed=seed) for each in tried]
    best = max(zip(tried, found, strict=True), key=lambda one: (
        -2.0 if one[1].silhouette is None else round(one[1].silhouette, 6), -abs(one[0] - k0), -one[0]))
    return best[1]


def started(n: int, *, k_max: int) -> int:
    return max(2, min(round(math.sqrt(n / 2)), k_max))


def candidates(n: int, *, k: int | None, k_max: int) -> list[int]:
    """The numbers of clusters to try, ascending; none where one cluster is all there can be."""
    most = (n - 1) // 2         # n > 2k
    if most < 2 or k == 1:
        return []
    if k is not None:
        return [min(k, most)]
    top = min(k_max, most)
    if top < 2:
        return []
    if top <= _TRIED + 1:
        return list(range(2, top + 1))
    spaced = {round(float(each)) for each in np.geomspace(2, top, _TRIED)}
    return sorted(spaced | {min(started(n, k_max=k_max), top)})


def assigned(vectors: NDArray[np.floating], centroids: Vectors) -> tuple[Labels, NDArray[np.float32]]:
    """The nearest centroid of each row, ties to the first, and the cosine to it."""
    labels = np.zeros(len(vectors), np.int64)
    closeness = np.zeros(len(vectors), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        cosines = vectors[start:start + _BLOCK].astype(np.float32) @ centroids.T
        labels[start:start + _BLOCK] = cosines.argmax(axis=1)
        closeness[start:start + _BLOCK] = cosines.max(axis=1)
    return labels, closeness


def silhouette(vectors: NDArray[np.floating], labels: Labels) -> float | None:
    """Mean over the rows of (b - a) / max(a, b), a the mean cosine distance to the others of one's cluster, b that to the nearest
    other cluster; 0 for whoever is alone in its cluster. None where there is one cluster."""
    names, places, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return None
    dense = vectors.astype(np.float64)
    distances = 1 - dense @ dense.T
    np.fill_diagonal(distances, 0.0)
    member = np.eye(len(names))[places]
    sums = distances @ member
    own = sums[np.arange(len(dense)), places] / np.maximum(sizes[places] - 1, 1)
    other = np.where(member > 0, np.inf, sums / sizes).min(axis=1)
    scale = np.maximum(np.maximum(own, other), 1e-12)
    return float(np.mean(np.where(sizes[places] > 1, (other - own) / scale, 0.0)))


def _of(vectors: NDArray[np.floating], centroids: Vectors) -> Partition:
    """Largest first; centroids that nothing is nearest to are left out."""
    labels, _ = assigned(vectors, centroids)
    counts = np.bincount(labels, minlength=len(centroids))
    order = [int(place) for place in np.argsort(-counts, kind="stable") if counts[place]]
    kept = centroids[order]
    labels, closeness = assigned(vectors, kept)
    return Partition(kept, labels, closeness)


def _scored(found: Partition, vectors: NDArray[np.floating], *, seed: int) -> Partition:
    sample = _sample(len(vectors), _SILHOUETTE, seed=seed)
    return Partition(found.centroids, found.labels, found.closeness, silhouette(vectors[sample], found.labels[sample]))


def _centroids(vectors: NDArray[np.floating], k: int, *, seed: int) -> Vectors:
    library = faiss()
    sample = np.ascontiguousarray(vectors[_sample(len(vectors), _PER_CENTROID * k, seed=seed)], np.float32)
    clustering = library.Clustering(sample.shape[1], k)
    clustering.seed, clustering.niter, clustering.nredo, clustering.spherical = seed, _ROUNDS, _REDONE, True
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, _PER_CENTROID
    with one_thread():
        clustering.train(sample, library.IndexFlatIP(sample.shape[1]))
    found: Vectors = library.vector_to_array(clustering.centroids).reshape(k, sample.shape[1])
    return _unit(found)


def _sample(size: int, most: int, *, seed: int) -> NDArray[np.int64]:
    if size <= most:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, most, replace=False))


def _mean(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    total: NDArray[np.float64] = vectors.sum(axis=0, dtype=np.float64)
    return (total / len(vectors)).astype(np.float32)


def _all_same(vectors: NDArray[np.floating]) -> bool:
    first = vectors[0].astype(np.float32)
    return all(bool(np.abs(vectors[start:start + _BLOCK].astype(np.float32) - first).max() < _SAME)
               for start in range(0, len(vectors), _BLOCK))


def _unit(rows: Vectors) -> Vectors:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Vectors = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit
