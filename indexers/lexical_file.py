"""The file of one segment's inverted index: a header, then arrays of little-endian numbers, each read in place.

    magic, format version, chunks, words, postings, bytes of all words, tokens       64 bytes
    keys       16 bytes a word       BLAKE2b digest of the word, ascending: a word is found by binary search in the file
    ends       int64                 where the next word's letters begin (words + 1 entries, the first is 0)
    starts     int64                 where the next word's postings begin (words + 1 entries, the first is 0)
    letters    bytes                 the words in UTF-8, end to end
    lengths    int32 a chunk         its words, repeats counted, each at most `MOST` times
    positions  int32 a posting       chunks that hold the word, ascending
    codes      uint16 a posting      256 * how often the chunk holds the word (1 to `MOST`) + its length as one byte

Each array begins at a multiple of 64 bytes. All sizes follow from the header, so a file of another size is refused.
The length byte repeats what `lengths` says, so that scoring a posting reads the posting alone; it is Lucene's
`SmallFloat.intToByte4`: exact below 40, then three significant bits, because Lucene's norms hold no more.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rag.errors import SnapshotCorrupt, SnapshotMismatch

FILE = "lexical.bin"
FORMAT = 1
MOST = 255
_MAGIC = b"TRLEXIC\n"
_HEADER = struct.Struct("<8sQQQQQQ8x")
_ALIGNED = 64
_KEY_BYTES = 16


def _decoded(code: int) -> int:
    """The least length that Lucene stores as this byte: `SmallFloat.byte4ToInt`."""
    if code < 24:
        return code
    bits, shift = (code - 24) & 7, ((code - 24) >> 3) - 1
    return 24 + (bits if shift < 0 else (bits | 8) << shift)


# Length that each byte stands for, ascending.
LENGTHS: NDArray[np.int64] = np.asarray([_decoded(code) for code in range(256)], np.int64)


def length_bytes(lengths: NDArray[np.int32]) -> NDArray[np.uint16]:
    return (np.searchsorted(LENGTHS, lengths, side="right") - 1).astype(np.uint16)


def digest(letters: bytes) -> bytes:
    """What a word in UTF-8 is ordered and found by. Two words with one digest are not to be found by any effort."""
    return hashlib.blake2b(letters, digest_size=_KEY_BYTES).digest()


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """What the file holds, mapped or in memory; see the module for the meaning of each."""

    keys: NDArray[np.bytes_]
    ends: NDArray[np.int64]
    starts: NDArray[np.int64]
    letters: NDArray[np.uint8]
    lengths: NDArray[np.int32]
    positions: NDArray[np.int32]
    codes: NDArray[np.uint16]
    tokens: int


@dataclass(frozen=True, slots=True)
class _Sizes:
    chunks: int
    words: int
    postings: int
    letters: int

    def sections(self) -> Iterator[tuple[np.dtype[np.generic], int, int]]:
        """Type, first byte and number of entries of each array, in file order; last of all, the end of the file."""
        at = _HEADER.size
        for kind, count in (("S16", self.words), ("<i8", self.words + 1), ("<i8", self.words + 1), ("u1", self.letters),
                            ("<i4", self.chunks), ("<i4", self.postings), ("<u2", self.postings), ("u1", 0)):
            at = -(-at // _ALIGNED) * _ALIGNED
            yield np.dtype(kind), at, count
            at += np.dtype(kind).itemsize * count


def opened(folder: Path) -> Arrays:
    """The arrays of the folder's index, mapped: nothing is read before it is asked for.

    Raises:
        SnapshotCorrupt: no such file, or one that is not whole. SnapshotMismatch: one of another format.
    """
    path = folder / FILE
    try:
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # a file of no bytes cannot be mapped
        raise corrupt(path, f"cannot be opened: {error}") from error
    if len(mapped) < _HEADER.size:
        raise corrupt(path, f"has {len(mapped)} bytes, fewer than its header")
    magic, version, chunks, words, postings, letters, tokens = _HEADER.unpack_from(mapped)
    if magic != _MAGIC:
        raise corrupt(path, "is no lexical index: it begins with other bytes")
    if version != FORMAT:
        raise SnapshotMismatch(f"{path} has format {version}; this version reads {FORMAT}.",
                               hint="Run `thriftrag collections rebuild`: the index can be made again from the store.")
    *sections, (_, whole, _) = _Sizes(chunks, words, postings, letters).sections()
    if len(mapped) != whole:
        raise corrupt(path, f"has {len(mapped)} bytes where its header says {whole}")
    keys, ends, starts, letter, lengths, positions, codes = (
        np.frombuffer(mapped, kind, count, at) if count else np.zeros(0, kind) for kind, at, count in sections)
    for name, offsets, total in (("word", ends, letters), ("posting", starts, postings)):
        if offsets[0] != 0 or offsets[-1] != total:
            raise corrupt(path, f"has {name} offsets from {offsets[0]} to {offsets[-1]} instead of 0 to {total}")
    return Arrays(keys, ends, starts, letter, lengths, positions, codes, tokens)


def save(folder: Path, arrays: Arrays, postings: Iterable[tuple[NDArray[np.int32], NDArray[np.uint16]]]) -> None:
    """Writes the index. Its postings come in pieces, in order, so that they need not be in memory together; those of
    `arrays` are not looked at."""
    count = int(arrays.starts[-1])
    sizes = _Sizes(len(arrays.lengths), len(arrays.keys), count, len(arrays.letters))
    *sections, (_, whole, _) = sizes.sections()
    with (folder / FILE).open("xb") as stream:
        stream.write(_HEADER.pack(_MAGIC, FORMAT, sizes.chunks, sizes.words, count, sizes.letters, arrays.tokens))
        small: tuple[ArrayLike, ...] = (arrays.keys, arrays.ends, arrays.starts, arrays.letters, arrays.lengths)
        *first, (_, positions_at, _), (_, codes_at, _) = sections
        for values, (kind, at, _) in zip(small, first, strict=True):
            _put(stream, at, np.ascontiguousarray(values, kind))
        for positions, codes in postings:
            positions_at = _put(stream, positions_at, np.ascontiguousarray(positions, "<i4"))
            codes_at = _put(stream, codes_at, np.ascontiguousarray(codes, "<u2"))
        stream.truncate(whole)


def _put(stream: BinaryIO, at: int, values: NDArray[Any]) -> int:
    """Writes `values` at a byte and returns the byte after them."""
    stream.seek(at)
    stream.write(values.tobytes())
    return at + values.nbytes


def spread(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """`starts[0], starts[0] + 1, ...` for `counts[0]` numbers, then the same of the next, end to end."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def letters_of(arrays: Arrays, which: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Letters of these words end to end, and how many each has."""
    counts = arrays.ends[which + 1] - arrays.ends[which]
    return arrays.letters[spread(arrays.ends[which], counts)], counts


def corrupt(path: Path, what: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(f"{path} {what}.", hint="Run `thriftrag collections rebuild`: every index can be made again "
                                                   "from the store.")


def joined(words: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Letters of the words end to end, and the offsets between them."""
    encoded = [word.encode() for word in words]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends
