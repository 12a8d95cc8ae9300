"""Lanes, rates, places and ceilings, with a clock by hand; keys and their hashes; the server's settings."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from api import keys
from api.database import FORMAT, Database
from api.errors import MoneySpent, Overloaded, RateLimited, ShuttingDown, TokensSpent, status_of
from api.keys import Key, Terms
from api.lanes import Lane
from api.limits import Ceilings, Cost, Places, Rates, SharedRates, worst_case
from api.presence import Presence
from api.settings import ServerSettings, load
from api.usage import Entry, Ledger
from rag import errors as ours
from rag.errors import ConfigError, InputError, RagError, SnapshotMismatch
from rag.types import Receipt
from tests.api_fakes import wait_until


def receipt(*, prompt: int, completion: int, usd: float = 0.0) -> Receipt:
    return Receipt(budget_tokens=100, context_tokens=10, prompt_tokens=prompt, completion_tokens=completion, cached_tokens=0,
                   llm_calls=1, encoder_passes=2, model="m", cost_usd=usd, seconds={"total": 1.0}, naive_tokens=prompt,
                   saved_tokens=0, energy_wh=0.0, water_ml=0.0, co2_g=0.0, estimates=())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path)
    yield opened
    opened.close()


def test_a_lane_runs_so_many_lets_so_many_wait_and_refuses_the_rest() -> None:
    async def check() -> None:
        lane, gate, left = Lane("ask", threads=2, waiting=1), threading.Event(), []
        running = [lane.submit(gate.wait, after=lambda: left.append(1)) for _ in range(3)]
        await asyncio.to_thread(wait_until, lambda: lane.running == 2)
        assert (lane.running, lane.queued, lane.idle()) == (2, 1, False)
        with pytest.raises(Overloaded) as refused:
            lane.submit(gate.wait, after=lambda: left.append(9))
        assert 1 <= refused.value.retry_after_s <= 60
        assert (lane.shed, left) == (1, [9])
        gate.set()
        await asyncio.gather(*running)
        await asyncio.to_thread(wait_until, lambda: left == [9, 1, 1, 1])
        assert lane.idle()
        lane.close(wait=True)
        with pytest.raises(ShuttingDown):
            lane.submit(gate.wait)

    asyncio.run(check())


def test_work_taken_out_of_the_line_gives_its_place_back_and_never_runs() -> None:
    async def check() -> None:
        lane, gate, ran, left = Lane("ask", threads=1, waiting=1), threading.Event(), [], []
        first = lane.submit(gate.wait)
        await asyncio.to_thread(wait_until, lambda: lane.running == 1)
        second = lane.submit(lambda: ran.append(1), after=lambda: left.append(1))
        second.cancel()
        await asyncio.to_thread(wait_until, lambda: lane.queued == 0)
        third = lane.submit(lambda: "third")
        gate.set()
        assert await third == "third"
        await first
        assert (ran, left) == ([], [1])
        lane.close(wait=True)

    asyncio.run(check())


def test_a_lane_gives_the_place_back_when_work_fails() -> None:
    async def check() -> None:
        lane = Lane("ask", threads=1, waiting=0)
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await lane.run(lambda: 1 / 0)
            await asyncio.to_thread(wait_until, lane.idle)
        lane.close(wait=True)

    asyncio.run(check())


def test_a_rate_is_a_minutes_worth_and_refills() -> None:
    now = [100.0]
    rates, key = Rates(lambda: now[0]), Key("a", "a", ("read",), per_minute=6)
    for _ in range(6):
        rates.take(key)
    with pytest.raises(RateLimited) as refused:
        rates.take(key)
    assert refused.value.retry_after_s == pytest.approx(10)
    now[0] += 9.9
    with pytest.raises(RateLimited):
        rates.take(key)
    now[0] += 0.2
    rates.take(key)
    rates.take(Key("b", "b", ("read",), per_minute=6))      # another key's minute is its own
    for _ in range(100):
        rates.take(Key("c", "c", ("read",)))                # no limit
    now[0] += 3600
    for _ in range(6):
        rates.take(key)
    with pytest.raises(RateLimited):
        rates.take(key)


def test_places_are_counted_and_given_back_once(database: Database, tmp_path: Path) -> None:
    places, key = Places(database, Presence(tmp_path, database)), Key("a", "a", ("read",), at_once=2)
    first, second = places.take(key), places.take(key)
    with pytest.raises(RateLimited) as refused:
        places.take(key)
    assert refused.value.code == "too_many_at_once"
    first()
    first()
    assert places.taken("a") == 1
    third = places.take(key)
    with pytest.raises(RateLimited):
        places.take(key)
    second()
    third()
    assert places.taken("a") == 0


def test_places_rates_and_what_is_set_aside_hold_across_processes(tmp_path: Path) -> None:
    """Two servers of one home, each with a connection of its own, as two processes have."""
    one, two = Database(tmp_path), Database(tmp_path)
    now = [1000.0]
    here, there = Presence(tmp_path, one, clock=lambda: now[0]), Presence(tmp_path, two, clock=lambda: now[0])
    key = Key("a", "a", ("read",), at_once=2, per_minute=3, tokens_per_day=1000)
    Places(one, here).take(key)
    give_back = Places(two, there).take(key)
    with pytest.raises(RateLimited):
        Places(one, here).take(key)
    give_back()
    Places(one, here).take(key)()
    for database in (one, two, one):
        SharedRates(database, lambda: now[0]).take(key)
    with pytest.raises(RateLimited) as refused:
        SharedRates(two, lambda: now[0]).take(key)
    assert refused.value.retry_after_s == pytest.approx(20)
    SharedRates(two, lambda: now[0] - 900).take(key)        # the machine's clock begins anew with the machine
    aside = Ceilings(Ledger(one), one, here).take(key, Cost(600, 0.0))
    with pytest.raises(TokensSpent, match="400 are left"):
        Ceilings(Ledger(two), two, there).take(key, Cost(401, 0.0))
    aside()
    Ceilings(Ledger(two), two, there).take(key, Cost(1000, 0.0))()
    for closed in (here, there, one, two):
        closed.close()


def test_what_a_dead_process_held_comes_back(tmp_path: Path) -> None:
    one, two = Database(tmp_path), Database(tmp_path)
    now = [1000.0]
    dead, left = Presence(tmp_path, one), Presence(tmp_path, two, clock=lambda: now[0])
    key = Key("a", "a", ("read",), at_once=1, tokens_per_day=1000)
    Places(one, dead).take(key)
    Ceilings(Ledger(one), one, dead).take(key, Cost(900, 0.0))
    assert sorted(left.alive()) == sorted((dead.id, left.id))
    with pytest.raises(RateLimited):
        Places(two, left).take(key)
    dead._held.release()                                    # as the system does when a process dies
    now[0] += 60
    Places(two, left).take(key)()
    now[0] += 60
    Ceilings(Ledger(two), two, left).take(key, Cost(900, 0.0))()
    assert left.alive() == [left.id]
    for database in (one, two):
        database.close()


def test_a_database_of_the_first_format_is_brought_up(tmp_path: Path) -> None:
    Database(tmp_path).close()
    with sqlite3.connect(tmp_path / "service.sqlite") as old:
        for column in ("owner", "progress", "stop"):
            old.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        old.execute("DROP TABLE places")
        old.execute("PRAGMA user_version=1")
    old.close()
    opened = Database(tmp_path)
    assert opened.rows("SELECT owner, progress, stop FROM jobs") == []
    assert opened.rows("SELECT * FROM places") == []
    opened.close()


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    def broken_off() -> None:
        with database.transaction():
            database.write("INSERT INTO rates VALUES ('a', 1, 1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_off()
    assert database.rows("SELECT * FROM rates") == []


def test_ceilings_bind_count_the_ledger_and_what_is_set_aside(database: Database, tmp_path: Path) -> None:
    now = [datetime.now(UTC)]
    ledger = Ledger(database)
    ceilings = Ceilings(ledger, database, Presence(tmp_path, database), lambda: now[0])
    key = Key("a", "a", ("read",), tokens_per_day=1000)
    give_back = ceilings.take(key, Cost(600, 0.0))
    with pytest.raises(TokensSpent, match="400 are left") as refused:
        ceilings.take(key, Cost(401, 0.0))
    midnight = datetime.combine(now[0].date() + timedelta(days=1), datetime.min.time(), UTC)
    assert refused.value.retry_after_s == pytest.approx((midnight - now[0]).total_seconds())
    assert midnight.date().isoformat() in refused.value.hint
    assert status_of(refused.value) == 429
    ledger.record(Entry(key, "c", "m", "ask", "r", "answered"), receipt(prompt=90, completion=10))
    give_back()
    ceilings.take(key, Cost(900, 0.0))()
    with pytest.raises(TokensSpent):
        ceilings.take(key, Cost(901, 0.0))
    now[0] += timedelta(days=1)
    ceilings.take(key, Cost(1000, 0.0))()


def test_a_ceiling_of_money_gives_402(database: Database, tmp_path: Path) -> None:
    key = Key("a", "a", ("read",), usd_per_day=0.01)
    ceilings = Ceilings(Ledger(database), database, Presence(tmp_path, database))
    ceilings.take(key, Cost(10**9, 0.01))()
    Ledger(database).record(Entry(key, "c", "m", "ask", "r", "answered"), receipt(prompt=1, completion=1, usd=0.004))
    with pytest.raises(MoneySpent, match=r"\$0\.006000 are left") as refused:
        ceilings.take(key, Cost(1, 0.0061))
    assert status_of(refused.value) == 402
    ceilings.take(key, Cost(1, 0.0059))()


def test_the_worst_case_is_over_any_prompt_of_the_question() -> None:
    asked = partial(worst_case, question="héllo", budget_tokens=256, answer_tokens=64, price_prompt=2.0, price_completion=10.0)
    cost = asked(max_cost_usd=None)
    assert cost.tokens == 256 + 6 + 512 + 64
    assert cost.usd == pytest.approx(((256 + 6 + 512) * 2 + 640) / 1e6)
    assert asked(max_cost_usd=1e-9).usd == 1e-9


def test_a_key_is_kept_as_a_hash_and_found_by_its_text(database: Database, tmp_path: Path) -> None:
    key, text = keys.create(database, "web", terms=Terms(scopes=("write",), tenant="t", collections=("b", "a"), per_minute=5))
    assert keys.check(database, text) == key
    assert (key.may("read"), key.may("write"), key.may("admin")) == (True, True, False)
    assert (key.reaches("a"), key.reaches("c")) == (True, False)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert text.encode() not in kept
    assert text.split("_", 2)[2].encode() not in kept
    assert stat.S_IMODE(database.path.stat().st_mode) == 0o600


def test_wrong_old_and_garbled_keys_are_nobodys(database: Database) -> None:
    key, text = keys.create(database, "web", terms=Terms())
    other, other_text = keys.create(database, "web", terms=Terms())
    swapped = f"trk_{key.id}_{other_text.split('_', 2)[2]}"
    flipped = text[:-1] + ("A" if text[-1] != "A" else "B")
    for wrong in ("", "trk_", text.upper(), text + "a", f" {text}", swapped, flipped, f"trk_{'0' * 12}_{'A' * 43}", "é" * 60):
        assert keys.check(database, wrong) is None
    assert keys.revoke(database, key.id).revoked is not None
    assert keys.check(database, text) is None
    assert keys.check(database, other_text) == other
    assert [found.id for found in keys.listed(database) if found.revoked] == [key.id]
    assert (keys.exist(database), keys.exist(database, valid=True)) == (True, True)
    keys.revoke(database, other.id)
    assert (keys.exist(database), keys.exist(database, valid=True)) == (True, False)
    with pytest.raises(InputError, match="no key 'x'"):
        keys.revoke(database, "x")


@pytest.mark.parametrize(("name", "terms", "field"), [
    ("", {}, "name"), ("a b", {}, "name"), ("ok", {"scopes": ()}, "scopes"), ("ok", {"scopes": ("root",)}, "scopes"),
    ("ok", {"tenant": "../x"}, "tenant"), ("ok", {"collections": ("a,b",)}, "collections"),
    ("ok", {"per_minute": -1}, "per_minute"),
    ("ok", {"usd_per_day": float("nan")}, "usd_per_day"), ("ok", {"usd_per_day": float("inf")}, "usd_per_day")])
def test_keys_that_cannot_be(database: Database, name: str, terms: dict[str, object], field: str) -> None:
    with pytest.raises(InputError) as refused:
        keys.create(database, name, terms=Terms(**terms))  # type: ignore[arg-type]
    assert refused.value.field == field
    assert keys.listed(database) == []


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    Database(tmp_path).close()
    with sqlite3.connect(tmp_path / "service.sqlite") as db:
        db.execute(f"PRAGMA user_version={FORMAT + 1}")
    with pytest.raises(SnapshotMismatch, match=f"format {FORMAT + 1}"):
        Database(tmp_path)


def test_every_error_has_a_status_of_its_kind() -> None:
    """A new class of errors must not become a 500 by oversight."""
    def kinds(of: type[RagError]) -> Iterator[type[RagError]]:
        for kind in of.__subclasses__():
            yield kind
            yield from kinds(kind)

    for kind in [kind for kind in kinds(RagError) if kind.__module__ == "rag.errors"]:
        status = status_of(kind("x"))
        assert (status == 500) == (kind is ours.BudgetExceeded), kind
        if issubclass(kind, ours.InputError):
            assert status in (404, 422)


def test_settings_come_from_file_then_variables_then_flags(tmp_path: Path) -> None:
    assert load(tmp_path, environ={}) == ServerSettings()
    (tmp_path / "serve.toml").write_text("port = 1\nask_threads = 2\nbody_kb = 7\n")
    found = load(tmp_path, {"port": 3, "host": None}, environ={"THRIFTRAG_SERVE_ASK_THREADS": "5", "THRIFTRAG_SERVE_PORT": "9"})
    assert (found.host, found.port, found.ask_threads, found.body_kb) == ("127.0.0.1", 3, 5, 7)


@pytest.mark.parametrize(("environ", "file", "name"), [
    ({"THRIFTRAG_SERVE_PORTS": "1"}, "", "ports"), ({"THRIFTRAG_SERVE_PORT": "x"}, "", "port"),
    ({"THRIFTRAG_SERVE_PORT": "70000"}, "", "port"), ({}, "ask_treads = 1", "ask_treads"), ({}, "drain_s = -1", "drain_s")])
def test_settings_that_cannot_be_are_named(tmp_path: Path, environ: dict[str, str], file: str, name: str) -> None:
    (tmp_path / "serve.toml").write_text(file)
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, environ=environ)
    assert refused.value.field == name
    assert refused.value.hint


def test_a_broken_file_of_settings_is_named(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text("port = \n")
    with pytest.raises(ConfigError, match=r"serve\.toml"):
        load(tmp_path, environ={})
