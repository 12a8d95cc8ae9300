"""The merge policy: few segments, little copying, neighbours only."""

from __future__ import annotations

import pytest

from indexers.merging import BASE, FACTOR, Standing, due, level


def run(sizes: list[int]) -> tuple[list[int], int]:
    """Segments after each of `sizes` was published, and how many chunks were copied by merges."""
    standing: list[int] = []
    copied = 0
    for size in sizes:
        standing.append(size)
        while wanted := due([Standing(s, s) for s in standing]):
            assert wanted == list(range(wanted[0], wanted[-1] + 1))
            merged = sum(standing[i] for i in wanted)
            copied += merged
            standing[wanted[0]:wanted[-1] + 1] = [merged]
    return standing, copied


@pytest.mark.parametrize("batch", [1, 37, BASE, 3 * BASE])
def test_segments_stay_few_and_chunks_are_copied_seldom(batch: int) -> None:
    batches = 2000
    standing, copied = run([batch] * batches)
    total = batch * batches
    assert sum(standing) == total
    assert len(standing) <= (FACTOR - 1) * (level(total) + 1)
    # Each level copies a chunk once; the lowest gathers small batches, a factor at a time, before it is full.
    assert copied / total <= level(total) + 1 + BASE / batch / (FACTOR - 1)


def test_a_small_addition_to_a_large_collection_copies_little() -> None:
    standing, _ = run([BASE] * 1000)
    _, before = run([BASE] * 1000)
    _, after = run([BASE] * 1000 + [3] * 7)
    assert after - before <= 3 * 7 + BASE * FACTOR
    assert len(standing) < 3 * FACTOR


def test_segments_that_are_mostly_dead_are_rewritten_alone() -> None:
    assert due([Standing(100, 100), Standing(1000, 400), Standing(10, 10)]) == [1]
    assert due([Standing(100, 50)]) == []
    assert due([Standing(100, 0)]) == [0]
    assert due([]) == []
