"""The page's files and what it asks the service beside questions: settings, passages, frontiers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.keys import Key
from api.routes.page import POLICY
from api.schemas import responses
from api.web.files import page
from eval import last
from tests.api_fakes import Live, live, make_collection, problem
from tests.fakes import WordEncoder

TUNED = {"format": 1, "kind": "tuning", "made": "2030-01-01T00:00:00Z", "reader": "paced", "command": "thriftrag tune -c default",
         "recommended": {"settings": {"budget_tokens": 64, "selector": "greedy"}, "sentence": "Budget 64 keeps it."}, "groups": [
             {"name": "default", "curves": [{"system": "greedy", "points": [
                 {"budget": 64, "tokens": 40.5, "f1": 71.0, "f1_ci": [60.0, 80.0], "n": 40}]}]}]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("home"), settings={"price_prompt": 0.5}) as made:
        yield made


def test_the_page_ships_and_loads_nothing_from_elsewhere(served: Live) -> None:
    client = served.client()
    index = client.get("/")
    assert index.headers["content-type"] == "text/html; charset=utf-8"
    assert index.headers["content-security-policy"] == POLICY
    assert "unsafe" not in POLICY
    assert index.headers["x-frame-options"] == "DENY"
    named = set(re.findall(r'(?:href|src)="(/page/[^"]+)"', index.text))
    assert len(named) >= 4
    for name, file in page().items():
        text = file.body.decode()
        named |= set(re.findall(r'from "(/page/[^"]+)"', text))
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), name
        if name != "icon.svg":      # its namespace is an address that nobody fetches
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(r"<script(?![^>]* src=)|<style|\son[a-z]+=|\sstyle=", text), name
    for path in named:
        response = client.get(path)
        assert response.status_code == 200, path
        assert response.headers["content-security-policy"] == POLICY
    assert {path.removeprefix("/page/") for path in named} == set(page()) - {"index.html"}


def test_a_file_that_is_known_is_not_sent_again_and_others_are_not_sent(served: Live) -> None:
    client = served.client()
    tag = client.get("/page/main.js").headers["etag"]
    again = client.get("/page/main.js", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("/page/files.py", "/page/..%2ffiles.py", "/page/nothing.js"):
        problem(client.get(path), 404, "not_found")


def test_the_settings_are_those_of_the_collection_and_the_key(tmp_path: Path) -> None:
    with live(tmp_path, settings={"price_prompt": 0.5}, max_budget_tokens=9000) as served:
        client = served.client()
        found = client.get("/v1/settings").json()
        responses.Settings.model_validate(found, strict=True)
        assert list(responses.Settings.model_fields) == list(found)
        assert (found["collection"], found["ask"]["budget_tokens"], found["ask"]["max_budget_tokens"]) == ("default", 256, 9000)
        assert found["prices"]["prompt"] == 0.5
        assert found["key"] == {"name": "local", "scopes": ["admin"], "collections": [], "needed": False}
        (tmp_path / "collections" / "default" / "settings.toml").write_text("budget_tokens = 96\n")
        assert client.get("/v1/settings", params={"collection": "default"}).json()["ask"]["budget_tokens"] == 96
        assert client.get("/v1/settings", params={"collection": "nothing"}).json()["ask"]["budget_tokens"] == 256
        reader = served.client(served.key(scopes=("read",), collections=("other",)))
        found = reader.get("/v1/settings", params={"collection": "default"}).json()
        assert (found["key"]["scopes"], found["key"]["needed"], found["ask"]["budget_tokens"]) == (["read"], True, 256)
        problem(served.client().get("/v1/settings"), 401, "key_missing")
        assert served.client().get("/").status_code == 200


def test_a_passage_is_told_with_its_place_in_the_document(served: Live) -> None:
    client = served.client()
    [row] = [row for row in served.ask().json()["trace"] if row["stage"] == "select"]
    path = "/v1/collections/default/chunks/"
    for candidate in row["considered"]:
        chunk = client.get(path + candidate["chunk_id"]).json()
        assert list(responses.Chunk.model_fields) == list(chunk)
        text = client.get(f"/v1/collections/default/documents/{chunk['doc_id']}").json()["text"]
        assert text[chunk["start"]:chunk["end"]] == chunk["text"]
        assert len(chunk["sentences"]) == candidate["sentences"]
        assert all(chunk["text"][start:end].strip() for start, end in chunk["sentences"])
    problem(client.get(path + "pump:0:00000000"), 404, "chunk_missing")
    problem(client.get("/v1/collections/nothing/chunks/pump:0:0"), 404, "collection_missing")


def test_passages_and_frontiers_of_one_tenant_are_hidden_from_others(tmp_path: Path) -> None:
    with live(tmp_path) as served:
        admin, partner = served.client(served.key(scopes=("admin",))), served.client(served.key("partner", tenant="partner"))
        last.keep(tmp_path / last.EVALUATION, {**TUNED, "kind": "evaluation"})
        last.keep(tmp_path / "collections" / "default" / last.TUNING, TUNED)
        hit = admin.post("/v1/search", json={"query": "warranty"}).json()["hits"][0]
        assert admin.get(f"/v1/collections/default/chunks/{hit['chunk_id']}").status_code == 200
        problem(partner.get(f"/v1/collections/default/chunks/{hit['chunk_id']}"), 404, "collection_missing")
        problem(partner.get("/v1/frontier"), 404, "collection_missing")
        theirs = served.service.shelf.settings_of(Key(id="x", name="x", scopes=("read",), tenant="partner"))
        make_collection(theirs, WordEncoder())
        assert partner.get("/v1/frontier").json() == {"tuning": None, "evaluation": None}
        problem(partner.get("/v1/collections/default/chunks/nothing:0:0"), 404, "chunk_missing")
        narrow = served.client(served.key("narrow", collections=("default",)))
        found = narrow.get("/v1/frontier").json()
        assert (found["tuning"]["kind"], found["evaluation"]) == ("tuning", None)


def test_a_frontier_is_told_as_it_was_kept_and_a_broken_one_is_none(tmp_path: Path) -> None:
    with live(tmp_path) as served:
        client = served.client()
        assert client.get("/v1/frontier").json() == {"tuning": None, "evaluation": None}
        last.keep(tmp_path / "collections" / "default" / last.TUNING, TUNED)
        found = client.get("/v1/frontier", params={"collection": "default"}).json()
        assert found == {"tuning": {name: value for name, value in TUNED.items() if name != "format"}, "evaluation": None}
        responses.Frontiers.model_validate(found)
        for broken in ("{", "[]", json.dumps({**TUNED, "format": 99})):
            (tmp_path / last.EVALUATION).write_text(broken)
            assert client.get("/v1/frontier").json()["evaluation"] is None

