"""Ctrl-C: told at once, ended in order where work can, and never mistaken for success."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_fakes import ANSWER, Cli

from rag.cli import interrupt
from rag.cli.edge import Stopped
from rag.errors import ModelTimeout
from rag.types import Answer, IngestReport, Progress, no_progress

PATIENCE_S = 10.0


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(monkeypatch, tmp_path)


def press_ctrl_c_and_wait(cancelled: Callable[[], bool]) -> bool:
    """Whether the work heard of it."""
    _thread.interrupt_main()
    heard = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if cancelled():
            return True
        heard.wait(0.01)
    return False


def test_undisturbed_work_returns_its_result() -> None:
    assert interrupt.run(lambda cancelled: (threading.current_thread().name, cancelled()), kept="") == interrupt.Ended(
        ("thriftrag-work", False), stopped=False)


def test_an_error_of_the_work_is_the_callers() -> None:
    def work(cancelled: Callable[[], bool]) -> None:
        raise ModelTimeout("slow")

    with pytest.raises(ModelTimeout):
        interrupt.run(work, kept="")


def test_stopped_work_may_end_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    ended = interrupt.run(press_ctrl_c_and_wait, kept="", finishing="Stopping after the batch.")
    assert ended == interrupt.Ended(True, stopped=True)
    assert capsys.readouterr().err == "\nStopping after the batch.\n"


def test_an_error_after_the_stop_is_the_stop() -> None:
    def work(cancelled: Callable[[], bool]) -> None:
        press_ctrl_c_and_wait(cancelled)
        raise ModelTimeout("cut off")

    with pytest.raises(Stopped, match="kept so far"):
        interrupt.run(work, kept="kept so far")


def test_work_that_does_not_listen_is_left_behind() -> None:
    release = threading.Event()

    def work(cancelled: Callable[[], bool]) -> None:
        _thread.interrupt_main()
        release.wait(PATIENCE_S)

    with pytest.raises(Stopped):
        interrupt.run(work, kept="", grace_s=0.05)
    release.set()


def test_a_second_ctrl_c_leaves_at_once() -> None:
    release = threading.Event()

    def work(cancelled: Callable[[], bool]) -> None:
        press_ctrl_c_and_wait(cancelled)
        _thread.interrupt_main()
        release.wait(PATIENCE_S)

    with pytest.raises(Stopped, match="published stays"):
        interrupt.run(work, kept="published stays", finishing="Stopping.")
    release.set()


def test_work_that_only_reports_progress_is_stopped_by_it() -> None:
    def work(cancelled: Callable[[], bool]) -> str:
        tick = interrupt.stopping(no_progress, cancelled, kept="half stays")
        tick(Progress("download", 1))
        press_ctrl_c_and_wait(cancelled)
        tick(Progress("download", 2))
        return "not reached"

    with pytest.raises(Stopped, match="half stays"):
        interrupt.run(work, kept="half stays")


def test_ingest_keeps_what_was_published(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def ingest(*paths: str, cancelled: Callable[[], bool], **_: object) -> IngestReport:
        return IngestReport(added=2, interrupted=press_ctrl_c_and_wait(cancelled))

    monkeypatch.setattr(cli.kb, "ingest", ingest)
    done = cli.run("ingest", "docs/")
    assert done.code == 130
    assert "2 documents" in done.out
    assert "Stopping after the batch in hand" in done.err
    assert "What is counted above stays" in done.err


def test_an_interrupted_ingest_in_json_is_one_object(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.kb, "ingest", lambda *paths, cancelled, **_: IngestReport(
        added=2, interrupted=press_ctrl_c_and_wait(cancelled)))
    done = cli.run("ingest", "docs/", "--json")
    assert done.code == 130
    assert done.json["interrupted"] is True


def test_a_stopped_answer_still_shows_its_bill(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(question: str, *, cancelled: Callable[[], bool], **_: object) -> Answer:
        press_ctrl_c_and_wait(cancelled)
        return ANSWER

    monkeypatch.setattr(cli.kb, "ask", ask)
    done = cli.run("ask", "Who?")
    assert done.code == 130
    assert "receipt" in done.out
    assert done.err == "Stopped. What it has cost so far is above.\n"


def test_ctrl_c_without_an_answer_says_what_is_kept(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(question: str, *, cancelled: Callable[[], bool], **_: object) -> Answer:
        press_ctrl_c_and_wait(cancelled)
        raise ModelTimeout("cut off")

    monkeypatch.setattr(cli.kb, "ask", ask)
    done = cli.run("ask", "Who?")
    assert (done.code, done.out, done.err) == (130, "", "Stopped. Nothing was changed.\n")
    assert cli.run("ask", "Who?", "--json").error["code"] == "interrupted"


def test_ctrl_c_in_a_short_command(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def documents() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.kb, "documents", documents)
    done = cli.run("documents", "list")
    assert (done.code, done.err) == (130, "Stopped. Nothing was changed.\n")
    assert cli.run("documents", "list", "--json").error["code"] == "interrupted"


def test_models_pull_keeps_what_was_downloaded(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def pull(name: str, *, on_progress: Callable[[Progress], None], **_: object) -> None:
        _thread.interrupt_main()
        for _ in range(int(PATIENCE_S / 0.01)):
            on_progress(Progress("download", 1, 2))
            threading.Event().wait(0.01)

    monkeypatch.setattr(cli.models, "pull", pull)
    done = cli.run("models", "pull")
    assert done.code == 130
    assert "What was downloaded stays" in done.err


def test_a_reader_that_left_stops_the_generation(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[bool] = []

    def ask(question: str, *, on_token: Callable[[str], None], cancelled: Callable[[], bool], **_: object) -> Answer:
        monkeypatch.setattr("sys.stdout.flush", broken, raising=True)
        on_token("Two ")
        heard.append(cancelled())
        monkeypatch.undo()
        return ANSWER

    def broken() -> None:
        raise BrokenPipeError

    monkeypatch.setattr(cli.kb, "ask", ask)
    done = cli.run("ask", "Who?", "--stream")
    assert heard == [True]
    assert done.code == 1
    assert done.err == ""
