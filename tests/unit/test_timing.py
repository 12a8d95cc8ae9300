"""Times of the benches: who is asked when, and how rows are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval import timing
from eval.bench import Measurement


def test_each_item_goes_to_every_way_before_the_next_item() -> None:
    asked: list[tuple[str, int]] = []
    ways = {name: (lambda item, name=name: asked.append((name, item))) for name in ("quick", "slow")}
    found = timing.interleaved(ways, [1, 2, 3], warming=2, fewer={"slow": 2})
    assert asked == [("quick", 1), ("slow", 1), ("quick", 2),
                     ("quick", 1), ("slow", 1), ("quick", 2), ("slow", 2), ("quick", 3)]
    assert {way: len(times) for way, times in found.items()} == {"quick": 3, "slow": 2}
    assert all(spent >= 0 for times in found.values() for spent in times)


def test_quantiles_are_told_in_milliseconds() -> None:
    times = [0.001 * number for number in range(1, 102)]
    assert timing.p50(times) == pytest.approx(51)
    assert timing.p95(times) == pytest.approx(96)


def test_time_that_items_take_to_come_is_told() -> None:
    given = timing.Timed(iter([1, 2]))
    assert list(given) == [1, 2]
    assert given.seconds > 0


def test_rows_are_set_against_the_base_of_the_same_rest() -> None:
    rows = [Measurement("ours, 10: x", 2.0, "ms", 1), Measurement("other, 10: x", 6.0, "ms", 1),
            Measurement("other, 20: x", 6.0, "ms", 1), Measurement("lone", 1.0, "ms", 1)]
    found = timing.against(rows, ("none", "ours"))
    assert [(row.ratio, row.ratio_to) for row in found] == [(None, None), (3.0, "ours, 10: x"), (None, None), (None, None)]


def test_rows_are_drawn_by_size(tmp_path: Path) -> None:
    rows = [Measurement(f"ours, {size:,} passages: search, p50", size / 1e3, "ms", 1) for size in (1_000, 10_000)]
    rows.append(Measurement("no size here", 1.0, "ms", 1))
    timing.plot_by_size(rows, tmp_path / "plots" / "x.png", what="passages", lines={"search, p50": ""}, title="t")
    assert (tmp_path / "plots" / "x.png").read_bytes()[:4] == b"\x89PNG"
