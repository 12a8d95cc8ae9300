"""Memory behind the REST service: repeated answers, the way round them, figures, and tenants apart."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rag.errors import ModelTimeout
from rag.types import Usage
from tests.api_fakes import Live, events, live, make_collection, problem


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path, settings={"answer_cache": "on"}) as running:
        yield running


def test_a_repeated_answer_costs_no_reader_and_can_be_refused(served: Live) -> None:
    first, again = served.ask().json(), served.ask().json()
    assert len(served.reader.spent) == 1
    assert (again["answer"], again["citations"]) == (first["answer"], first["citations"])
    assert again["receipt"]["llm_calls"] == 0
    assert again["trace"][0]["decision"] == "memory"
    fresh = served.ask(memory=False).json()
    assert len(served.reader.spent) == 2
    assert fresh["trace"][0]["stage"] == "retrieve"
    problem(served.ask(memory="yes"), 422, "input_invalid")


def test_a_stream_of_a_repeated_answer_tells_its_text(served: Live) -> None:
    served.ask()
    told = events(served.ask(stream=True).text)
    assert "".join(data["text"] for name, data in told if name == "token") == "27 months [1]."
    assert told[-1][0] == "done"


def test_decisions_are_counted(served: Live) -> None:
    served.ask()
    served.ask()
    text = served.client().get("/metrics").text
    assert 'thriftrag_trigger_total{decision="retrieve",rule="answers"} 1.0' in text
    assert 'thriftrag_trigger_total{decision="memory",rule="answers"} 1.0' in text


def test_calls_of_the_reader_are_counted_also_those_that_failed(served: Live) -> None:
    served.ask()
    served.ask()
    assert "thriftrag_reader_calls_total 1.0" in served.client().get("/metrics").text
    served.reader.error = ModelTimeout("it fell silent")
    served.reader.error.spent = Usage(prompt_tokens=7, completion_tokens=2)
    problem(served.ask("When do otters sleep?"), 504, "model_timeout")
    after = served.client().get("/metrics").text
    assert "thriftrag_reader_calls_total 2.0" in after
    spent = served.reader.spent[0]
    assert f'thriftrag_tokens_total{{kind="prompt"}} {spent[0] + 7}.0' in after
    assert f'thriftrag_tokens_total{{kind="completion"}} {spent[1] + 2}.0' in after


def test_tenants_share_no_memory_whatever_file_lies_in_their_folder(served: Live) -> None:
    home = served.home / "tenants"
    for name in ("one", "two"):
        make_collection(replace(served.service.settings, home=home / name), served.service.models.encoder())  # type: ignore[arg-type]
    one, two = (served.client(served.key(tenant=name)) for name in ("one", "two"))
    served.ask(client=one)
    served.ask(client=two)
    assert len(served.reader.spent) == 2
    # Somebody copies the home of one, its memory and all: the collection has even the same id.
    shutil.copytree(home / "one", home / "three")
    three = served.client(served.key(tenant="three"))
    assert served.ask(client=three).json()["trace"][0]["decision"] == "retrieve"
    assert served.ask(client=one).json()["trace"][0]["decision"] == "memory"
