"""The law of memory: whatever is updated or deleted, no answer says what the collection no longer says, and none misses what a
search would have shown."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag.settings import load
from tests.memory_fakes import open_kb, trust

NAMES = ("kettle", "lamp", "chair")
# What may happen to the document about a thing: it says another number, it goes, another document says another number.
CHANGES = st.lists(st.tuples(st.sampled_from(("update", "delete", "second", "ask")), st.sampled_from(NAMES),
                             st.integers(min_value=2, max_value=40)), min_size=1, max_size=4)


def text(name: str, years: int) -> str:
    return f"The warranty of the {name} lasts {years} years. It covers parts.\n"


def question(name: str, turn: int) -> str:
    return f"How long does the warranty of the {name} last{' in all' * (turn % 2)}?"


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=CHANGES, cache=st.booleans(), rule=st.sampled_from(("calibrated", "count")))
def test_no_answer_is_stale_after_updates_and_deletes(changes: list[tuple[str, str, int]], cache: bool, rule: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        chosen = load({"home": folder / "home", "models": folder / "models", "workers": 0}, environ={})
        docs = folder / "docs"
        docs.mkdir()
        for name in NAMES:
            (docs / f"{name}.txt").write_text(text(name, 1), encoding="utf-8")
        with open_kb(chosen, memory=rule, memory_tau=0.0, memory_theta=1, answer_cache="on" if cache else "off") as kb, \
                open_kb(chosen, memory="off") as fresh:
            kb.ingest(docs)
            trust(kb, near=0.6)
            for name in NAMES:
                kb.ask(question(name, 0))
            for turn, (what, name, years) in enumerate(changes):
                path = docs / f"{name}.txt"
                if what == "delete":
                    path.unlink(missing_ok=True)
                elif what != "ask":
                    (docs / f"{name}-{turn}.txt" if what == "second" else path).write_text(text(name, years), encoding="utf-8")
                kb.ingest(docs, prune=True)
                for asked in NAMES:
                    for phrase in (0, 1):
                        answer, right = kb.ask(question(asked, phrase)), fresh.ask(question(asked, phrase))
                        held = " ".join(document.read_text(encoding="utf-8") for document in docs.iterdir())
                        for citation in answer.citations:
                            assert citation.quote in held
                        newest = {citation.quote for citation in right.citations}
                        assert not newest or newest & {p.chunk.sentence(i) for p in answer.context.passages for i in p.sentences} \
                            or answer.text == right.text
