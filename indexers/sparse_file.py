"""The file of one segment's impact index: a header, then one section for each range of 8,192 passages, then a directory of them.

    header      magic, format version, passages, postings, vocabulary, ranges, clipped weights, place of the directory,
                scale (float64), passages a range, CRC-32 of header and directory                            128 bytes
    section     first      int32    for each 32 tokens of the vocabulary: lists before theirs (one entry more at the end)
                tokens     int32    a list's token, ascending
                starts     int32    where a list's postings begin in this section (lists + 1 entries)
                peaks      uint8    a list's largest impact
                positions  int16    passages of this range that hold the token, ascending
                impacts    uint8    1 to 255: see `indexers.impacts`
    directory   place, lists and postings of each section, int64

All numbers are little-endian; sections and their arrays begin at multiples of 64 bytes and are read in place. A posting takes three
bytes, because a position is counted from the beginning of its range. The peaks bound what a range can add to a score: they
are the block maxima of Block-Max indexes (Ding and Suel, SIGIR 2011) over ranges of passages (as in Block-Max Pruning: Mallia,
Suel and Tonellotto, SIGIR 2024), and cost nothing besides the lists themselves.
Sections are written one after the other as their passages come, so that no more than one is ever in memory.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from indexers.impacts import check_model
from rag.errors import InputError, SnapshotCorrupt, SnapshotMismatch

FILE = "sparse.bin"
FORMAT = 1
# Passages of a range: sums of 8,192 passages (32 KB) stay in a core's nearest cache.
RANGE = 8192
# Tokens that share an entry of `first`.
GROUP = 32
# Columns of `Views.layout`: where each array of a range begins, in its own entries, and how many lists and postings it has.
FIRST, TOKENS, STARTS, PEAKS, POSITIONS, IMPACTS, LISTS, POSTINGS = range(8)

_MAGIC = b"TRSPARS\n"
_HEADER = struct.Struct("<8sQQQQQQQdQQ40x")
_ALIGNED = 64
_ITEM_BYTES = (4, 4, 4, 1, 2, 1)     # of the arrays of a section, in file order
_PLACE = "<i8"


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """The lists of one range, in memory. See the module for the meaning of each array."""

    first: NDArray[np.int32]
    tokens: NDArray[np.int32]
    starts: NDArray[np.int32]
    peaks: NDArray[np.uint8]
    positions: NDArray[np.int16]
    impacts: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the header says. `clipped`: weights above the scale when the passages were written, deleted ones included."""

    passages: int
    postings: int
    vocabulary: int
    scale: float
    clipped: int


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """The mapped file as numbers of one, two and four bytes, and where each range's arrays are in them (int64, ranges by 8)."""

    bytes_: NDArray[np.uint8]
    shorts: NDArray[np.int16]
    words: NDArray[np.int32]
    layout: NDArray[np.int64]


class Writer:
    """Writes an index section by section; complete only after `finish`."""

    def __init__(self, stream: BinaryIO, *, vocabulary: int, scale: float) -> None:
        check_model(vocabulary=vocabulary, scale=scale)
        self._stream, self._vocabulary, self._scale = stream, vocabulary, scale
        self._directory: list[tuple[int, int, int]] = []
        self._at = stream.write(bytes(_HEADER.size))

    def add(self, section: Section) -> None:
        self._directory.append((self._at, len(section.tokens), len(section.positions)))
        for values, kind in ((section.first, "<i4"), (section.tokens, "<i4"), (section.starts, "<i4"), (section.peaks, "u1"),
                             (section.positions, "<i2"), (section.impacts, "u1")):
            self._put(np.ascontiguousarray(values, kind).tobytes())

    def finish(self, *, passages: int, clipped: int) -> Facts:
        directory = np.asarray(self._directory, _PLACE).reshape(-1, 3)
        postings, place = int(directory[:, 2].sum()), self._at
        self._put(directory.tobytes())
        facts = Facts(passages, postings, self._vocabulary, self._scale, clipped)
        self._stream.seek(0)
        self._stream.write(_header(facts, len(directory), place, zlib.crc32(directory.tobytes())))
        return facts

    def _put(self, raw: bytes) -> None:
        self._at += self._stream.write(raw)
        self._at += self._stream.write(bytes(-self._at % _ALIGNED))


def opened(folder: Path) -> tuple[Facts, Views]:
    """The folder's index, mapped: header and directory are read and checked, and nothing else before it is asked for.

    Raises:
        SnapshotCorrupt: no such file, or one that is not whole. SnapshotMismatch: one of another format.
    """
    path = folder / FILE
    try:
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # a file of no bytes cannot be mapped
        raise corrupt(path, f"cannot be opened: {error}") from error
    if len(mapped) < _HEADER.size or len(mapped) % _ALIGNED:
        raise corrupt(path, f"has {len(mapped)} bytes, which no whole index has")
    magic, version, passages, postings, vocabulary, ranges, clipped, place, scale, span, _ = _HEADER.unpack_from(mapped)
    if magic != _MAGIC:
        raise corrupt(path, "is no impact index: it begins with other bytes")
    if version != FORMAT:
        raise SnapshotMismatch(f"{path} has format {version}; this version reads {FORMAT}.",
                               hint="Run `thriftrag collections rebuild`: the index can be made again from the store.")
    if place % _ALIGNED or place > len(mapped) or ranges > (len(mapped) - place) // 24:
        raise corrupt(path, f"has {len(mapped)} bytes and no room for {ranges} ranges listed at byte {place}")
    directory = np.frombuffer(mapped, _PLACE, 3 * ranges, place).reshape(-1, 3)
    facts = Facts(passages, postings, vocabulary, scale, clipped)
    if mapped[:_HEADER.size] != _header(facts, ranges, place, zlib.crc32(directory.tobytes())) or span != RANGE:
        raise corrupt(path, "does not have the checksum of its header and directory")
    if ranges != -(-passages // RANGE) or postings != directory[:, 2].sum():
        raise corrupt(path, f"has {ranges} ranges of {int(directory[:, 2].sum())} postings for {passages} passages of {postings}")
    layout = _layout(directory, vocabulary)
    if (layout[:, :LISTS] < 0).any() or (layout[:, IMPACTS] + layout[:, POSTINGS] > place).any():
        raise corrupt(path, "lists ranges outside of it")
    try:
        check_model(vocabulary=vocabulary, scale=scale)
    except InputError as error:
        raise corrupt(path, f"is of no model: {error.message}") from error
    return facts, Views(np.frombuffer(mapped, "u1"), np.frombuffer(mapped, "<i2"), np.frombuffer(mapped, "<i4"), layout)


def corrupt(path: Path, what: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(f"{path} {what}.", hint="Run `thriftrag collections rebuild`: every index can be made again "
                                                   "from the store.")


def _header(facts: Facts, ranges: int, place: int, checksum: int) -> bytes:
    """The header whose checksum goes on from that of the directory over the header's own other fields."""
    def packed(value: int) -> bytes:
        return _HEADER.pack(_MAGIC, FORMAT, facts.passages, facts.postings, facts.vocabulary, ranges, facts.clipped, place,
                            facts.scale, RANGE, value)

    return packed(zlib.crc32(packed(0), checksum))


def _layout(directory: NDArray[Any], vocabulary: int) -> NDArray[np.int64]:
    """Where each array of each range begins, in entries of its own type. Sizes follow from lists and postings."""
    at, lists, postings = directory.T.astype(np.int64)
    groups = np.full(len(directory), -(-vocabulary // GROUP) + 1)
    layout = np.empty((len(directory), 8), np.int64)
    for column, count in enumerate((groups, lists, lists + 1, lists, postings, postings)):
        layout[:, column] = at // _ITEM_BYTES[column]
        at = at + -(-count * _ITEM_BYTES[column] // _ALIGNED) * _ALIGNED
    layout[:, LISTS], layout[:, POSTINGS] = lists, postings
    return layout
