"""Any filter finds the same documents in Qdrant as `rag.filters.matches` does: on random filters, over fields with awkward
names and values of every kind, in the embedded shard and in qdrant-client's own imitation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexers.qdrant_fields import condition, filtered, paths, payload
from indexers.qdrant_points import Point, Points, between
from rag.filters import And, Equals, Exists, Fields, Filter, In, Not, Or, Range, Value, matches
from rag.filters.values import amount
from rag.types import FieldValue, Scalar
from tests.qdrant_collections import KINDS, SERVER, points_of, settings_of

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect")

NAMES = ["source", "year", "a.b", "list[0]", 'quo"te', "back\\slash", "metadata.source", "50%", "unseen"]
STRINGS = ["", "a", "b", "ab", "2024-05-01", "2024-05-01T10:00:00Z", "ü", "日本", "a\x00b", "true", "1",
           "x" * 1200, "x" * 1200 + "y"]
NUMBERS = [0, 1, -1, 2, 2020, 0.5, -0.5, 1.0, 2019.5, 2**53, 2**53 + 1, 2**62 + 1, 2**63 - 1, -(2**63), 2**63, 2**70, 1e300, -1e300]
VALUES: list[Scalar] = [*STRINGS, *NUMBERS, True, False]


def documents() -> list[Fields]:
    """Each value alone under some name, then lists, then documents with several fields: the same ones every time."""
    import random

    rng = random.Random(7)
    absent: list[FieldValue] = [None, (), (None,), math.nan, math.inf, -math.inf]
    found: list[dict[str, FieldValue]] = [{rng.choice(NAMES[:-1]): value} for value in [*VALUES, *VALUES, *absent]]
    for _ in range(60):
        found.append({name: tuple(rng.choices([*VALUES, None], k=rng.randrange(4))) if rng.random() < 0.4 else rng.choice(VALUES)
                      for name in rng.sample(NAMES[:-1], rng.randrange(1, 5))})
    return [{name if name in ("source", "metadata.source") else f"metadata.{name}": value for name, value in fields.items()}
            for fields in found]


DOCUMENTS = documents()


@pytest.fixture(scope="module", params=KINDS)
def points(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Points, frozenset[str]]]:
    folder: Path = tmp_path_factory.mktemp("filters")
    found = points_of(request.param, folder, name="test-filters", settings=settings_of(folder, qdrant_url=SERVER))
    found.drop()
    found.create(2)
    found.index("row", "integer")
    carried = [{"row": row, **payload(fields)} for row, fields in enumerate(DOCUMENTS)]
    known = {path: kind for one in carried for path, kind in paths(one).items()}
    for path, kind in known.items():
        found.index(path, kind)
    found.upsert([Point(row, one) for row, one in enumerate(carried)])
    yield found, frozenset(known)
    found.drop()
    found.close()


names = st.sampled_from(NAMES)
# By number: the long strings would fill every report.
values = st.integers(0, len(VALUES) - 1).map(lambda at: cast(Value, VALUES[at]))


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    bounds = cast(list[str | int | float], STRINGS if draw(st.booleans()) else NUMBERS)
    places = draw(st.lists(st.integers(0, len(bounds) - 1), min_size=2, max_size=2, unique=True))
    low, high = sorted((bounds[at] for at in places), key=amount)
    assume(amount(low) != amount(high))
    kinds = draw(st.sampled_from([("gt", "lt"), ("gte", "lte"), ("gt", "lte"), ("gte",), ("gt",), ("lt",), ("lte",)]))
    return Range(draw(names), **{kind: low if kind.startswith("g") else high for kind in kinds})


leaves = st.one_of(st.builds(Equals, names, values), st.builds(Exists, names), ranges(),
                   st.builds(In, names, st.lists(values, min_size=1, max_size=4).map(tuple)))
filters = st.recursive(leaves, lambda inner: st.one_of(
    st.builds(Not, inner), st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
    st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple))), max_leaves=6)


def matching(where: Filter) -> set[int]:
    return {row for row, fields in enumerate(DOCUMENTS) if matches(where, fields)}


def found_by(points: Points, known: frozenset[str], where: Filter, *, named: int) -> set[int]:
    def rows(part: Range) -> set[int] | None:
        found = matching(part)
        return found if len(found) <= named else None

    verdict = condition(where, known=known, rows=rows)
    if isinstance(verdict, bool):
        return set(range(len(DOCUMENTS))) if verdict else set()
    everything = between(0, None)["must"]
    return set(points.rows({"must": [*cast(list[object], everything), filtered(verdict)]}).tolist())


def bounds_beyond_doubles(where: Filter) -> bool:
    match where:
        case Range():
            bounds = (where.gt, where.gte, where.lt, where.lte)
            return any(isinstance(bound, int | float) and abs(bound) >= 2**53 for bound in bounds)
        case And(parts=parts) | Or(parts=parts):
            return any(bounds_beyond_doubles(part) for part in parts)
        case Not(part=part):
            return bounds_beyond_doubles(part)
    return False


@hypothesis_settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=filters)
def test_qdrant_finds_what_the_reference_says(points: tuple[Points, frozenset[str]], where: Filter) -> None:
    expected, found = matching(where), found_by(*points, where, named=1000)
    assert expected <= found                                    # never too little: the reader drops the rest
    if not bounds_beyond_doubles(where):
        assert found == expected


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=filters)
def test_ranges_of_strings_too_wide_to_name_leave_nothing_out(points: tuple[Points, frozenset[str]], where: Filter) -> None:
    assert matching(where) <= found_by(*points, where, named=0)
