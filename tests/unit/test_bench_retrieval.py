"""The retrieval bench on a small world: every way is measured on the same questions, English sets and others apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.bench import Measurement, Options, retrieval
from rag.errors import InputError
from rag.settings import Settings
from rag.types import no_progress
from tests.origins_fakes import world

WAYS = ["bm25", "dense", "sparse", "sparse without expansion", "rrf of bm25+dense", "weighted bm25+dense", "rrf of dense+sparse",
        "weighted dense+sparse", "rrf of bm25+dense+sparse", "weighted bm25+dense+sparse", "bm25 re-ranked by sparse"]


def measured(settings: Settings, tmp_path: Path, *data: Path, weights: Path | None, limit: int | None = 12
             ) -> dict[tuple[str, str], Measurement]:
    (tmp_path / "scratch").mkdir(exist_ok=True)
    options = Options(settings, tmp_path / "scratch", data=data, weights=weights, limit=limit, home=tmp_path / "home")
    rows = retrieval.run(options, on_progress=no_progress)
    found = {(row.name, row.unit): row for row in rows}
    assert len(found) == len(rows)
    return found


def in_french(folder: Path, source: Path) -> Path:
    """The same set, with questions of which every second has no word that the vocabulary spells."""
    folder.mkdir()
    (folder / "corpus.jsonl").write_text((source / "corpus.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    lines = [json.loads(line) for line in (source / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    for number, line in enumerate(lines):
        line.update({"lang": "ru", "question": "гарантия"} if number % 2 else {"lang": "fr"})
    (folder / "queries.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_each_way_is_measured_by_set_and_on_the_mean(settings: Settings, tmp_path: Path) -> None:
    own, weights, first = world(tmp_path, settings)
    _, _, second = world(tmp_path / "other", settings)
    second = second.rename(second.with_name("more"))
    rows = measured(own, tmp_path, first, second, weights=weights)
    for measure in ("nDCG@10", "recall@10"):
        for way in WAYS:
            one, other = (rows[f"{name}: {way}", measure] for name in ("words", "more"))
            assert (one.n, 0 <= one.value <= 1) == (12, True)
            assert one.ratio_to == (None if way == "bm25" else "words: bm25")
            mean = rows[f"macro mean of 2 sets: {way}", measure]
            assert (mean.value, mean.n) == (pytest.approx((one.value + other.value) / 2), 24)
            assert mean.interval is not None
            assert mean.interval[0] <= mean.value <= mean.interval[1]
        gap = rows["macro mean of 2 sets: sparse - bm25", measure]
        assert gap.value == pytest.approx(rows["macro mean of 2 sets: sparse", measure].value
                                          - rows["macro mean of 2 sets: bm25", measure].value)
        best = max(("bm25", "dense", "sparse"), key=lambda way: rows[f"macro mean of 2 sets: {way}", measure].value)
        assert (f"macro mean of 2 sets: weighted bm25+dense+sparse - {best}", measure) in rows
        assert ("macro mean of 2 sets: rrf of bm25+dense - rrf of bm25+dense", measure) not in rows
    [tokens] = [row for (name, _), row in rows.items() if name.startswith("words: tilde@") and name.endswith(": tokens")]
    [added] = [row for (name, _), row in rows.items() if name.startswith("words: tilde@") and name.endswith("expansion")]
    assert 0 < added.value < tokens.value


def test_other_languages_are_told_apart_and_not_in_the_mean(settings: Settings, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_LEAST", 5)
    own, weights, english = world(tmp_path, settings)
    rows = measured(own, tmp_path, english, in_french(tmp_path / "autre", english), weights=weights, limit=30)
    names = {name.partition(": ")[0] for name, _ in rows}
    [russian] = [name for name in names if name.startswith("autre [ru")]
    [french] = [name for name in names if name.startswith("autre [fr, 0 of")]
    asked = rows[f"{russian}: bm25", "nDCG@10"].n
    assert russian == f"autre [ru, {asked} of {asked} questions without terms]"
    assert asked + rows[f"{french}: bm25", "nDCG@10"].n == 30
    assert rows[f"{russian}: sparse", "nDCG@10"].value == rows[f"{russian}: bm25", "nDCG@10"].value, "it falls back to words"
    assert rows["macro mean of 1 sets: dense", "nDCG@10"].value == rows["words: dense", "nDCG@10"].value
    alone = measured(own, tmp_path, tmp_path / "autre", weights=weights)
    assert not [name for name, _ in alone if name.startswith("macro mean")]


def test_without_term_weights_words_and_meaning_are_measured(settings: Settings, tmp_path: Path) -> None:
    own, _, folder = world(tmp_path, settings)
    rows = measured(own, tmp_path, folder, weights=None)
    ways = [name.partition(": ")[2] for name, unit in rows if name.startswith("words: ") and unit == "nDCG@10"]
    assert ways == ["bm25", "dense", "rrf of bm25+dense", "weighted bm25+dense"]
    assert ("macro mean of 1 sets: weighted bm25+dense - rrf of bm25+dense", "nDCG@10") in rows


def test_another_run_encodes_only_what_is_new(settings: Settings, tmp_path: Path) -> None:
    own, weights, folder = world(tmp_path, settings)
    first = measured(own, tmp_path, folder, weights=weights)
    kept = sorted((tmp_path / "home" / "evaluation" / "encodings").iterdir())
    assert [path.name.partition("@")[0] for path in kept] == ["tilde", "tiny", "tiny"]
    times = [path.stat().st_mtime_ns for path in kept]
    again = measured(own, tmp_path, folder, weights=weights)
    assert [row.to_dict() for row in again.values()] == [row.to_dict() for row in first.values()]
    _, other, _ = world(tmp_path / "retrained", settings, seed=1)
    changed = measured(own, tmp_path, folder, weights=other)
    now = sorted((tmp_path / "home" / "evaluation" / "encodings").iterdir())
    assert (len(now), [path.stat().st_mtime_ns for path in now if path in kept]) == (4, times)
    assert changed["words: dense", "nDCG@10"].value == first["words: dense", "nDCG@10"].value


def test_two_sets_of_one_name_are_refused(settings: Settings, tmp_path: Path) -> None:
    own, weights, folder = world(tmp_path, settings)
    with pytest.raises(InputError, match="Two data sets are named 'words'"):
        measured(own, tmp_path, folder, folder, weights=weights)
