"""How well each way of searching finds the gold documents: BM25, dense, term weights, SPLADE-tiny, and what fuses them, in one run.

All ways rank the same chunks for the same questions, at most 300 of each set, drawn with the seed among those whose gold documents
are known (`--limit`). A chunk is what a collection would hold. Every score is exhaustive, so nothing here depends on an index;
term weights are rounded to eight bits as indexes keep them. Each way ranks the union of the best 100 chunks of its origins, and
documents are ranked by their best chunk. "sparse" answers a question without terms as searches do: by BM25 where its letters are of
another script, else by the dense vectors.

The macro mean is over the sets whose questions are mostly English; others are told apart, also by language. Intervals are 95 %
bootstrap intervals; differences are paired by question. Encodings are kept below the evaluation home, so that another run, also
with other term weights (`--weights`), encodes only what is new. SPLADE-tiny (`--teacher`) needs the extra `torch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from eval.bench import Measurement, Options
from eval.datasets import Dataset
from eval.origins.judged import MEASURES, Judged, difference, judged, macro
from eval.origins.opened import Opened, loaded, opened
from eval.origins.ways import COMBINATIONS, MODES, RERANKED, ways
from rag.types import OnProgress, Progress
from retrievers.fusion_weights import combination

TAKES = frozenset({"weights", "limit", "teacher"})
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
_LIMIT = 300
# A language of fewer questions in a set gets no figure of its own.
_LEAST = 20


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    found: dict[str, dict[str, Judged]] = {}
    english: list[str] = []
    rows: list[Measurement] = []
    origins = opened(options.settings, scratch=options.scratch, weights=options.weights, teacher=options.teacher, home=options.home,
                     on_progress=on_progress)
    data = loaded(options.data or (SAMPLE,))
    for number, dataset in enumerate(data):
        on_progress(Progress("rank", number, len(data), "sets", dataset.name))
        found[dataset.name], by_language = _ranked(origins, dataset, options)
        if not by_language:
            english.append(dataset.name)
        for name, some in ((dataset.name, found[dataset.name]), *by_language.items()):
            rows += _figures(name, some)
        rows += _lengths(origins, dataset.name)
    rows += _macro([found[name] for name in english], options.seed)
    return rows


def _ranked(origins: Opened, dataset: Dataset, options: Options) -> tuple[dict[str, Judged], dict[str, dict[str, Judged]]]:
    """Each way on the whole set; and, unless it is mostly English, on its questions of each language."""
    scored = origins.scored(dataset, limit=options.limit or _LIMIT, seed=options.seed)
    chunks = scored.chunks
    found = {name: judged(chunks, partial(way, scored)) for name, way in ways(list(scored.by_origin)).items()}
    languages = [question.language for question in chunks.questions]
    if 2 * languages.count("en") >= len(languages):
        return found, {}
    by_language = {}
    for language in sorted(set(languages)):
        places = [place for place, other in enumerate(languages) if other == language]
        if len(places) >= _LEAST:
            without = sum(bool(scored.without_terms[place]) for place in places)
            name = f"{dataset.name} [{language}, {without} of {len(places)} questions without terms]"
            by_language[name] = {way: each.only(places) for way, each in found.items()}
    return found, by_language


def _figures(name: str, found: Mapping[str, Judged]) -> Iterator[Measurement]:
    for measure in MEASURES:
        base = found["bm25"].mean(measure)
        for way, each in found.items():
            ratio = each.mean(measure) / base if base and way != "bm25" else None
            yield Measurement(f"{name}: {way}", each.mean(measure), measure, len(each.values[measure]), ratio,
                              None if ratio is None else f"{name}: bm25")


def _lengths(origins: Opened, name: str) -> Iterator[Measurement]:
    """Tokens with a weight a chunk, and how many of these the chunk does not hold."""
    if origins.weighing is not None:
        terms = origins.terms[name]
        size, called = terms.passages.size, f"{name}: {origins.weighing.terms.name}"
        yield Measurement(f"{called}: tokens", len(terms.own) / size, "tokens/chunk", size)
        yield Measurement(f"{called}: tokens by expansion", float((~terms.own).sum()) / size, "tokens/chunk", size)


def _macro(sets: Sequence[Mapping[str, Judged]], seed: int) -> Iterator[Measurement]:
    """The macro means over the sets, and the differences that decide which way is the default."""
    if not sets:
        return
    columns = {way: [each[way] for each in sets] for way in sets[0]}
    total = sum(len(each["bm25"].values[MEASURES[0]]) for each in sets)
    for measure in MEASURES:
        means = {}
        for way, column in columns.items():
            at = macro(column, measure, seed=seed)
            if at is not None:
                means[way] = at[0]
                yield Measurement(f"macro mean of {len(sets)} sets: {way}", at[0], measure, total, interval=at[1])
        best = max((mode for mode in MODES if mode in means), key=means.__getitem__)
        plain = f"rrf of {combination(COMBINATIONS[0])}"
        pairs = [("sparse", "bm25"), ("sparse", "sparse without expansion"), ("sparse", "splade"), (RERANKED, "bm25")]
        pairs += [(way, other) for way in means if way.startswith(("rrf", "weighted")) for other in (best, plain) if way != other]
        for way, other in pairs:
            if way in means and other in means:
                gap = difference(columns[way], columns[other], measure, seed=seed)
                if gap is not None:
                    yield Measurement(f"macro mean of {len(sets)} sets: {way} - {other}", gap[0], measure, total, interval=gap[1])
