"""A batch of texts in slices that actors encode, and what is said of one that cannot be encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from indexers.encoders.openvino import batches
from rag.errors import UpstreamError

# Tokens in a slice: about 32 passages. A call costs some milliseconds, which is a hundredth of the time they take.
SLICE_TOKENS = 5120
SLICES_PER_ACTOR = 3            # so that a fast node can take what a slow one has not begun


class EncodingFailed(UpstreamError):
    """Passages that no encoder survived. `hashes`: the sha256 of each text, by which whoever has the texts can name them."""

    code = "encoding_failed"

    def __init__(self, message: str, *, hint: str = "", hashes: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.hashes = tuple(hashes)


@dataclass(frozen=True, slots=True)
class Slice:
    """Texts that one actor encodes in one call, and their places among all."""

    positions: tuple[int, ...]
    texts: tuple[str, ...]


def sliced(texts: Sequence[str], *, lengths: Sequence[int], actors: int) -> list[Slice]:
    """Whole batches of the encoder, longest texts first, in slices of about equal cost."""
    most = min(SLICE_TOKENS, sum(lengths) / (SLICES_PER_ACTOR * actors))
    slices: list[Slice] = []
    positions: list[int] = []
    for batch in batches(lengths):
        positions += batch
        if sum(lengths[i] for i in positions) >= most:
            slices.append(_slice(texts, positions))
            positions = []
    return [*slices, _slice(texts, positions)] if positions else slices


def _slice(texts: Sequence[str], positions: Sequence[int]) -> Slice:
    return Slice(tuple(positions), tuple(texts[i] for i in positions))


def failed(slice_: Slice, why: str, *, times: int) -> EncodingFailed:
    """`why`: how the last attempt ended. The texts themselves are not told."""
    hashes = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() for text in slice_.texts]
    longest = max(len(text) for text in slice_.texts)
    return EncodingFailed(
        f"{len(slice_.texts)} passages of up to {longest:,} characters (sha256 of the first: {hashes[0][:16]}) ended {times} "
        f"encoders on the Ray cluster, one after the other. The last one: {why}.", hashes=hashes,
        hint="What was published before stays. Read the logs of the Ray workers, or ingest with ray_address empty.")
