"""The shipped weights of the weighted sum, and tables that are refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from retrievers.fusion_weights import COMBINATIONS, TABLE, combination, read, weights_of

SHIPPED = json.loads(TABLE.read_text(encoding="utf-8"))


def test_every_combination_has_weights() -> None:
    for name in COMBINATIONS:
        weights = weights_of(reversed(name.split("+")))
        assert combination(weights) == name
        assert sum(weights.values()) == pytest.approx(1.0)
    assert weights_of(["sparse"]) == {"sparse": 1.0}


@pytest.mark.parametrize(("path", "value", "message"), [
    (("format",), 2, "has format 2"), (("normalisation",), "z", "normalisation 'z'"),
    (("combinations", "bm25+dense", "weights", "dense"), -0.5, "not negative"),
    (("combinations", "bm25+dense", "weights", "dense"), float("nan"), "finite"),
    (("combinations", "bm25+dense", "weights"), {"bm25": 0, "dense": 0}, "one is positive"),
    (("combinations", "bm25+dense", "weights"), {"bm25": 1.0}, "has under bm25\\+dense weights for bm25"),
    (("combinations", "a+b"), {"weights": {"a": 1, "b": 1}}, "has under a\\+b"),
    (("combinations",), {}, "has no weights for bm25\\+dense")])
def test_a_table_that_cannot_be_is_refused(tmp_path: Path, path: tuple[str, ...], value: object, message: str) -> None:
    table = copy.deepcopy(SHIPPED)
    inner = table
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    file = tmp_path / "fusion.json"
    file.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read(file)
