"""Readers that open, search and verify while another process publishes, deletes and compacts: never an error, never a state
that nobody published."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from indexers.snapshot import Snapshot
from rag.settings import load
from retrievers.hybrid import Searcher
from tests.fakes import WordEncoder

# Each round adds two documents that name the round, then forgets those of the round before, then merges everything.
WRITER = """
    import sys
    from pathlib import Path
    from indexers.writer import writing
    from tests.unit.test_store import indexed
    folder = Path(sys.argv[1])
    for number in range(int(sys.argv[2])):
        with writing(folder) as writer:
            writer.publish([indexed(f"left{number}", [f"Otters of round {number}."]),
                            indexed(f"right{number}", [f"More otters of round {number}."])])
            if number:
                writer.delete([f"left{number - 1}", f"right{number - 1}"])
            if number % 3 == 0:
                writer.compact()
"""
ROUNDS = 40


def test_readers_see_whole_states_while_a_writer_works(tmp_path: Path) -> None:
    from indexers import store

    encoder, settings = WordEncoder(), load({"home": tmp_path}, environ={})
    folder = tmp_path / "kb"
    store.create(folder, encoder=encoder.name, dimension=encoder.dimension, chunk_tokens=200)
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(folder), str(ROUNDS)],
                              cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)

    def read() -> int:
        seen = 0
        held: Snapshot | None = None
        while writer.poll() is None:
            snapshot = Snapshot(folder, reuse=held if seen % 2 else None)
            searcher = Searcher(snapshot, encoder, settings=settings)
            found = {hit.chunk.doc_id for hit in searcher.search("otters", mode="hybrid", k=20)}
            assert found == {document.id for document in snapshot.documents()}
            rounds = {name.removeprefix("left").removeprefix("right") for name in found}
            assert len(found) == 2 * len(rounds)        # both documents of a transaction, or none
            assert snapshot.problems() == []
            if held is not None:
                held.close()
            held = snapshot
            seen += 1
        return seen

    with ThreadPoolExecutor(max_workers=3) as readers:
        counts = [future.result() for future in [readers.submit(read) for _ in range(3)]]
    assert writer.returncode == 0, writer.stderr.read() if writer.stderr else ""
    assert min(counts) > 3
    with closing(Snapshot(folder)) as last:
        assert {document.id for document in last.documents()} == {f"left{ROUNDS - 1}", f"right{ROUNDS - 1}"}
