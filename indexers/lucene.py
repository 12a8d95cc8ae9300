"""A segment's words as a Lucene index, made from its inverted index, so that both hold the same.

One document a chunk, in order: Lucene's document number is the chunk's position. Words are given as they are, split at
spaces, with frequencies and lengths but without positions and without stored text. The folder is final when written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from indexers.lexical import LexicalIndex
from indexers.lexical_words import LONGEST
from indexers.lucene_jvm import bridge, java, on_java
from rag.errors import SnapshotCorrupt, StorageError

FOLDER = "lucene"
FIELD = "words"
_BUFFER_MB = 128.0
_FIELD_SIGNATURE = "(Ljava/lang/String;Ljava/lang/CharSequence;Lorg/apache/lucene/index/IndexableFieldType;)V"
# Words whose counts are compared; asking for each through Python would take minutes.
_SAMPLED = 200


def write(folder: Path, index: LexicalIndex) -> None:
    """Writes `folder / FOLDER`, which must not exist.

    Raises:
        ConfigError: Java or pyserini is missing. StorageError: Lucene could not write.
    """
    target = folder / FOLDER
    on_java(partial(_write, target, index))
    (target / "write.lock").unlink(missing_ok=True)  # Lucene leaves the empty file of its lock behind


def problems(folder: Path, index: LexicalIndex) -> list[str]:
    """Where the Lucene index disagrees with the index it was made from; empty when sound."""
    try:
        return on_java(partial(_disagreements, folder, index))
    except SnapshotCorrupt as error:
        return [error.message]


def opened(folder: Path) -> Any:
    """Lucene's reader of a written folder; close it after use. On the Java thread, as the next.

    Raises:
        SnapshotCorrupt: Lucene cannot read it.
    """
    target = folder / FOLDER
    failure = bridge().JavaException
    try:
        return java("org.apache.lucene.index.DirectoryReader").open(_directory(target))
    except failure as error:
        raise SnapshotCorrupt(f"{target} cannot be read by Lucene: {error}.",
                              hint="Run `thriftrag collections rebuild`: every index can be made again from the store.") from error


def analyzer() -> Any:
    """Splits at spaces; the longest word passes whole."""
    return java("org.apache.lucene.analysis.core.WhitespaceAnalyzer")(2 * LONGEST)  # Lucene counts UTF-16 units


def _disagreements(folder: Path, index: LexicalIndex) -> list[str]:
    reader = opened(folder)
    try:
        return [f"{folder / FOLDER}: {found} {what}, but {index.path.name} has {expected}"
                for what, found, expected in _compared(reader, index) if found != expected]
    finally:
        reader.close()


def _compared(reader: Any, index: LexicalIndex) -> Iterator[tuple[str, int, int]]:
    yield "chunks", reader.maxDoc(), index.size
    yield "chunks with words", reader.getDocCount(FIELD), int(np.count_nonzero(index.lengths))
    yield "words, repeats counted", reader.getSumTotalTermFreq(FIELD), index.tokens
    yield "postings", reader.getSumDocFreq(FIELD), len(index.arrays.positions)
    term = java("org.apache.lucene.index.Term")
    vocabulary = index.vocabulary()
    for word in vocabulary[::max(1, len(vocabulary) // _SAMPLED)]:
        yield "chunks with one of the words", reader.docFreq(term(FIELD, word)), len(index.postings(word)[0])


def _write(target: Path, index: LexicalIndex) -> None:
    with _explained(target):
        target.mkdir()
        _fill(target, index)


def _fill(target: Path, index: LexicalIndex) -> None:
    directory = _directory(target)
    try:
        writer = java("org.apache.lucene.index.IndexWriter")(directory, _configuration())
        try:
            _add(writer, index)
            writer.forceMerge(1)
        finally:
            writer.close()
    finally:
        directory.close()


def _add(writer: Any, index: LexicalIndex) -> None:
    kind = java("org.apache.lucene.document.FieldType")()
    kind.setIndexOptions(java("org.apache.lucene.index.IndexOptions").DOCS_AND_FREQS)
    kind.setTokenized(True)
    kind.freeze()
    field = java("org.apache.lucene.document.Field")(FIELD, "", kind, signature=_FIELD_SIGNATURE)
    document = java("org.apache.lucene.document.Document")()
    document.add(field)
    for bag in index.bags():
        field.setStringValue(" ".join(bag))
        writer.addDocument(document)


def _configuration() -> Any:
    """Documents keep their order: only neighbouring pieces are merged, on this thread, into one compound file."""
    policy = java("org.apache.lucene.index.LogDocMergePolicy")()
    policy.setNoCFSRatio(1.0)
    chosen = java("org.apache.lucene.index.IndexWriterConfig")(analyzer())
    chosen.setMergePolicy(policy)
    chosen.setMergeScheduler(java("org.apache.lucene.index.SerialMergeScheduler")())
    chosen.setRAMBufferSizeMB(_BUFFER_MB)
    return chosen


def _directory(target: Path) -> Any:
    return java("org.apache.lucene.store.FSDirectory").open(java("java.io.File")(str(target)).toPath())


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    failure = bridge().JavaException
    try:
        yield
    except failure as error:
        full = "No space left" in str(error)
        raise StorageError(f"Lucene could not write {target}: {error}.", code="disk_full" if full else None,
                           hint="Free some space and run the command again: what was published is intact." if full
                           else "Check the disk and run the command again.") from error
