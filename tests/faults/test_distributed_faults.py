"""What may break on a real Ray cluster of two nodes: each time the work is done again, or the error says what it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from indexers.distributed import ClusterUnavailable, Connection, EncodingFailed, RayEncoder, RayParsing, connect, parsing, pool
from indexers.distributed.placing import Share
from indexers.loaders import Found, discover
from indexers.loaders import load as load_file
from rag.errors import ConfigError
from rag.settings import Settings, load
from rag.types import Document, FileFailure, Progress
from tests.cluster_fakes import OtherPlan, TwoNodes, WordPlan, die_parsing, two_nodes, write_files
from tests.fakes import WordEncoder

TEXTS = [f"otter {i} " * (1 + i % 40) for i in range(200)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as both:
        yield both


@pytest.fixture(scope="module")
def there(nodes: TwoNodes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    home = tmp_path_factory.mktemp("home")
    with connect(load({"home": home, "ray_address": nodes.address}, environ={}), on_progress=ticks.append) as connection:
        yield connection


ticks: list[Progress] = []


def parsed(reading: RayParsing, files: list[Found]) -> list[tuple[Found, list[Document | FileFailure]]]:
    return [(found, list(documents)) for found, documents in reading.parse(files)]


def files_in(*paths: Path, settings: Settings) -> list[Found]:
    return [found for found in discover(paths, settings=settings) if isinstance(found, Found)]


def same_as_here(encoder: RayEncoder, texts: Sequence[str]) -> bool:
    return np.array_equal(encoder.encode(texts), WordEncoder().encode(texts))


def on_both_nodes(encoder: RayEncoder) -> None:
    while len(encoder.shares) < 2:
        encoder.encode(TEXTS)


def test_a_node_killed_while_it_encodes_costs_nothing_and_a_new_one_is_put_to_work(
        nodes: TwoNodes, there: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LOOK_S", 0.1)
    with closing(RayEncoder(there, settings=settings, plan=WordPlan(delay_s=0.003))) as encoder:
        on_both_nodes(encoder)
        lost: list[str] = []

        def kill(done: int) -> None:
            """With the first slice that is done: each node has been given two."""
            if not lost:
                lost.append(nodes.kill_second())

        ticks.clear()
        assert np.array_equal(encoder.encode(TEXTS, on_batch=kill), WordEncoder().encode(TEXTS))
        while not any("is lost; its work is done again" in tick.note for tick in ticks):
            assert same_as_here(encoder, TEXTS)         # its processes may outlive it by a moment
        assert same_as_here(encoder, TEXTS)             # the rest of the cluster goes on
        nodes.whole()
        while len(encoder.shares) < 3:
            assert same_as_here(encoder, TEXTS)


def test_a_node_killed_while_it_parses_costs_nothing(nodes: TwoNodes, there: Connection, settings: Settings, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "TASK_FILES", 1)
    nodes.whole()
    for i in range(40):
        lines = (f'{{"id": "{i}-{j}", "text": "Record {j} of file {i} speaks of otters."}}' for j in range(150))
        (tmp_path / f"{i:02}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    files = files_in(tmp_path, settings=settings)
    reading = RayParsing(there, settings=settings)
    got, killed_at = [], 0
    for number, (found, documents) in enumerate(reading.parse(files)):
        got.append((found, list(documents)))
        if len(reading.shares) == 2 and not killed_at:      # both parse, and eight more files are under way
            killed_at = number
            nodes.kill_second()
    assert 0 < killed_at < 32
    assert got == [(found, list(load_file(found, settings=settings))) for found in files]
    assert sum(len(documents) for _, documents in got) == 40 * 150


def test_an_encoder_that_dies_once_is_replaced_and_its_work_done_again(there: Connection, settings: Settings,
                                                                       tmp_path: Path) -> None:
    plan = WordPlan(fatal="otter 77 ", once=tmp_path / "died")
    with closing(RayEncoder(there, settings=settings, plan=plan)) as encoder:
        assert same_as_here(encoder, TEXTS)
        assert (tmp_path / "died").exists()


def test_a_passage_that_no_encoder_survives_is_named(there: Connection, settings: Settings) -> None:
    with closing(RayEncoder(there, settings=settings, plan=WordPlan(fatal="otter 77 "))) as encoder:
        heard: list[int] = []
        with pytest.raises(EncodingFailed, match="ended 3 encoders") as caught:
            encoder.encode(TEXTS, on_batch=heard.append)
        assert hashlib.sha256(TEXTS[77].encode()).hexdigest() in caught.value.hashes
        assert len(caught.value.hashes) < len(TEXTS) / 2
        assert "otter" not in str(caught.value)         # a message never quotes a document
        clean = [text for text in TEXTS if "otter 77 " not in text]
        assert same_as_here(encoder, clean)             # and the cluster is not the worse for it


def test_encoders_that_die_on_every_call_end_in_an_error(there: Connection, settings: Settings) -> None:
    with closing(RayEncoder(there, settings=settings, plan=WordPlan(fatal="otter"))) as encoder, \
            pytest.raises(EncodingFailed, match="What was published before stays"):
        encoder.encode(TEXTS)


def test_an_encoder_that_raises_is_an_error_without_its_words(there: Connection, settings: Settings,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_DEATHS", 1)
    with closing(RayEncoder(there, settings=settings, plan=WordPlan(bad="otter 3 "))) as encoder:
        with pytest.raises(EncodingFailed, match="RuntimeError") as caught:
            encoder.encode(TEXTS)
        assert "secret" not in str(caught.value)


def test_an_encoder_that_hangs_is_taken_for_dead(there: Connection, settings: Settings, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SLICE_S", 1.0)
    plan = WordPlan(endless="otter 42 ", once=tmp_path / "hung")
    with closing(RayEncoder(there, settings=settings, plan=plan)) as encoder:
        assert same_as_here(encoder, TEXTS)
        assert (tmp_path / "hung").exists()


def test_encoders_that_die_together_cost_a_slice_one_death(there: Connection, settings: Settings,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """As when their node dies: those that are not known to be dead yet must not be tried one after the other."""
    import ray

    monkeypatch.setattr(pool, "shares", lambda *_, **__: [Share(0.1, 0, 1)] * 2)
    monkeypatch.setattr(pool, "MAX_DEATHS", 2)
    with closing(RayEncoder(there, settings=settings, plan=WordPlan())) as encoder:
        members = encoder._pool._members
        while not members or not all(member.ready for member in members):
            encoder.encode(TEXTS)
        dead = [member for member in members if member.node.id == members[0].node.id]
        for member in dead:
            ray.kill(member.actor)
        members.sort(key=lambda member: member not in dead)
        assert same_as_here(encoder, TEXTS[:9])         # a single slice, and the dead come first
    assert len(dead) == 2


@pytest.mark.parametrize(("missing", "reason"), [(False, "other@1 with 32 dimensions, the driver has words@1"),
                                                 (True, "only models that run in OpenVINO are sent")])
def test_nodes_that_cannot_open_the_encoder_are_named(there: Connection, settings: Settings, missing: bool, reason: str) -> None:
    with closing(RayEncoder(there, settings=settings, plan=OtherPlan(missing=missing))) as encoder, \
            pytest.raises(ClusterUnavailable, match=reason) as caught:
        encoder.encode(TEXTS)
    assert "No node of the Ray cluster can encode with words@1" in caught.value.message


def test_another_version_on_the_nodes_is_refused(there: Connection, settings: Settings, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "own_version", lambda: "9.9")
    monkeypatch.setattr(parsing, "own_version", lambda: "9.9")
    with closing(RayEncoder(there, settings=settings, plan=WordPlan())) as encoder, \
            pytest.raises(ClusterUnavailable, match=r"the driver has 9\.9"):
        encoder.encode(TEXTS)
    files = files_in(write_files(tmp_path / "docs", 2), settings=settings)
    with pytest.raises(ConfigError, match=r"the driver has 9\.9"):
        parsed(RayParsing(there, settings=settings), files)


def test_a_file_that_ends_its_process_every_time_is_left_out(there: Connection, settings: Settings, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "parse_files", die_parsing)
    monkeypatch.setattr(parsing, "RETRIES", 1)
    for name in ("a.txt", "bad.txt", "c.txt"):
        (tmp_path / name).write_text("words", encoding="utf-8")
    got = parsed(RayParsing(there, settings=settings), files_in(tmp_path, settings=settings))
    [[], [failure], []] = [documents for _, documents in got]
    assert isinstance(failure, FileFailure)
    assert (failure.code, failure.source.endswith("bad.txt")) == ("parser_died", True)


def test_files_that_only_the_driver_sees_are_sent(there: Connection, settings: Settings, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's own working folder, by a path that leads elsewhere in every other process."""
    write_files(tmp_path / "docs", 30)
    (tmp_path / "docs" / "late.jsonl").write_text('{"id": "7", "text": "One."}\n{"text": "Two."}', encoding="utf-8")
    monkeypatch.chdir(tmp_path / "docs")
    files = [Found(Path("/proc/self/cwd") / path.name, path.name, path.stat().st_size) for path in sorted(Path().iterdir())]
    gone = Found(Path("/proc/self/cwd/gone.txt"), "gone.txt", 9)
    expected = [(found, list(load_file(found, settings=settings))) for found in [*files, gone]]
    assert parsed(RayParsing(there, settings=settings), [*files, gone]) == expected
    assert parsed(RayParsing(there, settings=settings, ship="always"), [*files, gone]) == expected
    [unseen] = dict(parsed(RayParsing(there, settings=settings, ship="never"), files[:1])).values()
    assert [item.code for item in unseen if isinstance(item, FileFailure)] == ["file_missing"]


def test_another_file_at_the_same_place_on_a_node_is_not_taken_for_it(there: Connection, settings: Settings, tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes' processes have this repository as their working folder, and a file of this name in it."""
    assert Path("pyproject.toml").exists()
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text("# the driver's own", encoding="utf-8")
    found = Found(Path("/proc/self/cwd/pyproject.toml"), "pyproject.toml", 18)
    [(_, documents)] = parsed(RayParsing(there, settings=settings), [found])
    assert documents == list(load_file(found, settings=settings))
    assert [document.text for document in documents if isinstance(document, Document)] == ["# the driver's own"]


def test_leaving_early_stops_what_is_under_way(there: Connection, settings: Settings, tmp_path: Path) -> None:
    files = files_in(write_files(tmp_path / "docs", 300), settings=settings)
    reading = RayParsing(there, settings=settings)
    given = iter(files)
    coming = reading.parse(given)
    found, _ = next(coming)
    assert found == files[0]
    coming.close()
    assert len(list(given)) > 150                       # it had looked ahead, but not to the end
    assert len(parsed(reading, files)) == 300           # and may be used again
