"""Who may call, what they may reach, and what is never said: over a real connection, with real keys."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api import keys, server
from api.logs import JsonLines
from api.service import Service, is_loopback
from api.settings import ServerSettings
from rag.errors import ConfigError
from tests.api_fakes import QUESTION, Live, live, make_collection, make_settings, problem

UPLOAD = [("files", ("a.txt", b"The Omega valve is made in Lyon.\n"))]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as running:
        yield running


def test_without_keys_a_person_at_this_machine_may_do_everything(served: Live) -> None:
    assert served.ask().status_code == 200
    assert served.client("whatever a library sends").get("/v1/collections").status_code == 200
    assert served.client().get("/metrics").status_code == 200


def test_as_soon_as_there_is_a_key_one_is_asked_for(served: Live) -> None:
    key = served.key()
    problem(served.ask(), 401, "key_missing")
    refused = served.client("trk_000000000000_" + "A" * 43).get("/v1/collections")
    problem(refused, 401, "key_invalid")
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert served.client(key).get("/v1/collections").status_code == 200
    assert served.client().get("/healthz").status_code == served.client().get("/readyz").status_code == 200
    keys.revoke(served.service.database, key.split("_")[1])
    problem(served.client(key).get("/v1/collections"), 401, "key_invalid")
    problem(served.ask(), 401, "key_missing")       # the last key's end must not open the door


def test_a_key_is_read_from_its_header_alone(served: Live) -> None:
    key = served.key()
    client = served.client()
    problem(client.get("/v1/collections", params={"key": key}), 401, "key_missing")
    problem(client.get("/v1/collections", params={"api_key": key, "access_token": key}), 401, "key_missing")
    problem(client.get("/v1/collections", headers={"Cookie": f"key={key}"}), 401, "key_missing")
    problem(client.get("/v1/collections", headers={"Authorization": f"Basic {key}"}), 401, "key_invalid")
    assert client.get("/v1/collections", headers={"Authorization": f"bearer  {key}"}).status_code == 200


def test_strangers_are_refused_before_their_body_is_looked_at(served: Live) -> None:
    served.key()
    response = served.client().post("/v1/ask", content=b"{broken", headers={"Content-Type": "application/json"})
    problem(response, 401, "key_missing")


def test_scopes(served: Live) -> None:
    reads, writes, admin = (served.client(served.key(scopes=(name,))) for name in ("read", "write", "admin"))
    assert served.ask(client=reads).status_code == served.ask(client=writes).status_code == 200
    for refused in (reads.post("/v1/collections", json={"name": "x"}), reads.delete("/v1/collections/default"),
                    reads.post("/v1/collections/default/documents", files=UPLOAD),
                    reads.delete("/v1/collections/default/documents/pump"), reads.delete("/v1/jobs/x")):
        problem(refused, 403, "scope_missing")
    problem(writes.get("/metrics"), 403, "scope_missing")
    assert writes.post("/v1/collections", json={"name": "x"}).status_code == 201
    assert admin.get("/metrics").status_code == admin.delete("/v1/collections/x").status_code == 200


def test_a_key_of_some_collections_cannot_tell_others_from_none(served: Live) -> None:
    make_collection(served.service.settings, served.ingestion._encoder, name="secret")
    admin = served.client(served.key(scopes=("admin",)))
    bound = served.client(served.key(scopes=("write",), collections=("default",)))
    assert [row["name"] for row in bound.get("/v1/collections").json()["collections"]] == ["default"]
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/documents"), ("GET", "/documents/pump"),
                         ("DELETE", "/documents/pump")):
        known = bound.request(method, f"/v1/collections/secret{path}")
        unknown = bound.request(method, f"/v1/collections/nowhere{path}")
        assert problem(known, 404, "collection_missing")["hint"] == problem(unknown, 404, "collection_missing")["hint"]
    for body in ({"question": QUESTION, "collection": "secret"}, {"question": QUESTION, "collection": "nowhere"}):
        error = problem(bound.post("/v1/ask", json=body), 404, "collection_missing")
        assert "default" not in error["hint"]
    problem(bound.post("/v1/search", json={"query": "a", "collection": "secret"}), 404, "collection_missing")
    problem(bound.post("/v1/collections", json={"name": "third"}), 404, "collection_missing")
    job = admin.post("/v1/collections/secret/documents", files=UPLOAD).json()["id"]
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events"):
        problem(bound.get(path), 404, "job_missing")
    problem(bound.delete(f"/v1/jobs/{job}"), 404, "job_missing")


def test_a_key_of_one_collection_means_that_one(served: Live) -> None:
    make_collection(served.service.settings, served.ingestion._encoder, name="other",
                    records=[{"id": "x", "text": "The warranty of the Zeta pump is 27 months, says the other book."}])
    answer = served.ask(client=served.client(served.key(collections=("other",)))).json()
    assert answer["citations"][0]["doc_id"] == "x"


def test_tenants_have_homes_of_their_own(served: Live) -> None:
    one, two = (served.client(served.key(scopes=("admin",), tenant=name)) for name in ("one", "two"))
    assert one.get("/v1/collections").json() == {"collections": []}
    assert one.post("/v1/collections", json={"name": "default"}).status_code == 201
    problem(two.get("/v1/collections/default"), 404, "collection_missing")
    assert one.get("/v1/collections/default").json()["documents"] == 0
    assert served.ask(client=one).json()["reason"].startswith("no_index_content")
    job = one.post("/v1/collections/default/documents", files=UPLOAD).json()["id"]
    problem(two.get(f"/v1/jobs/{job}"), 404, "job_missing")
    usage = two.get("/v1/usage").json()["total"]
    assert usage["requests"] == 0
    answer_id = served.ask(client=one).json()["id"]
    problem(two.post("/v1/feedback", json={"answer_id": answer_id, "rating": "up"}), 404, "answer_missing")
    assert one.post("/v1/feedback", json={"answer_id": answer_id, "rating": "up"}).status_code == 201
    assert (served.home / "tenants" / "one" / "collections" / "default").is_dir()


def test_a_rate_of_a_key_is_kept(served: Live) -> None:
    limited, other = served.client(served.key(per_minute=2)), served.client(served.key())
    assert [limited.get("/v1/collections").status_code for _ in range(2)] == [200, 200]
    refused = limited.get("/v1/collections")
    problem(refused, 429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert other.get("/v1/collections").status_code == 200


def test_a_key_may_have_so_many_under_way(served: Live) -> None:
    limited = served.client(served.key(at_once=1))
    served.reader.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(served.ask, client=limited)
        assert served.reader.began.acquire(timeout=60)
        problem(served.ask(client=limited), 429, "too_many_at_once")
        served.reader.gate.set()
        assert first.result().status_code == 200
    assert served.ask(client=limited).status_code == 200


def test_daily_ceilings_refuse_before_anything_is_spent(tmp_path: Path) -> None:
    with live(tmp_path, settings={"price_prompt": 1000.0, "price_completion": 1000.0}) as served:
        tokens = served.client(served.key(tokens_per_day=900))
        money = served.client(served.key(usd_per_day=1.0))
        assert served.ask(client=tokens, budget_tokens=64).status_code == 200
        refused = served.ask(client=tokens, budget_tokens=300)
        error = problem(refused, 429, "daily_tokens_spent")
        assert "resets at" in error["hint"]
        assert 0 < int(refused.headers["retry-after"]) <= 86_400
        spent = len(served.reader.spent)
        assert served.ask(client=money, budget_tokens=64).status_code == 200
        problem(served.ask(client=money, budget_tokens=1000), 402, "daily_cost_spent")
        problem(served.ask(client=money, budget_tokens=1000, stream=True), 402, "daily_cost_spent")
        assert len(served.reader.spent) == spent + 1
        assert served.client(served.key()).get("/v1/usage").json()["total"]["requests"] == 0


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1.evil.example", "http://127.0.0.1:1"])
def test_pages_of_other_origins_are_refused_whatever_they_send(served: Live, origin: str) -> None:
    client = served.client()
    problem(client.post("/v1/collections/default/documents", files=UPLOAD, headers={"Origin": origin}), 403, "origin_refused")
    refused = client.post("/v1/ask", json={"question": QUESTION}, headers={"Origin": origin})
    problem(refused, 403, "origin_refused")
    assert "access-control-allow-origin" not in refused.headers
    assert served.ingestion.orders == []


def test_the_servers_own_pages_and_named_origins_may_call(tmp_path: Path) -> None:
    with live(tmp_path, cors_origins="https://app.example") as served:
        client = served.client()
        assert client.post("/v1/search", json={"query": "a"}, headers={"Origin": served.url}).status_code == 200
        allowed = client.post("/v1/search", json={"query": "a"}, headers={"Origin": "https://app.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        problem(client.post("/v1/search", json={"query": "a"}, headers={"Origin": "https://other.example"}), 403, "origin_refused")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::1", "", "10.0.0.1"])
def test_a_name_that_was_pointed_here_is_refused_where_there_are_no_keys(served: Live, host: str) -> None:
    response = served.client().get("/v1/collections", headers={"Host": host})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "host_refused")
    assert served.client().get("/v1/collections", headers={"Host": "localhost:1"}).status_code == 200


def test_every_response_keeps_browsers_safe(served: Live) -> None:
    client = served.client()
    for response in (client.get("/healthz"), client.get("/nowhere"), served.ask(), served.ask(stream=True),
                     client.get("/openapi.json")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["cache-control"] == "no-store"
        assert "server" not in response.headers


def test_logs_hold_no_text_no_names_and_no_keys(served: Live, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = served.key(scopes=("admin",))
    client = served.client(key)
    served.ask("How long is the zebrafinch warranty of the Zeta pump?", client=client)
    client.post("/v1/collections/default/documents", files=[("files", ("zebrafinch.txt", b"A zebrafinch sings.\n"))])
    client.get("/v1/collections/default/documents/zebrafinch.txt")
    client.post("/v1/ask", content=b'{"question": "zebrafinch", "zebrafinch": 1}', headers={"Content-Type": "application/json"})
    client.get("/v1/usage", params={"zebrafinch": "zebrafinch"})
    served.quiet()
    formatter = JsonLines()
    ours = ("api", "uvicorn", "rag", "indexers")
    lines = [formatter.format(record) for record in caplog.records if record.name.split(".")[0] in ours]
    rows = [json.loads(line) for line in lines]
    access = [row for row in rows if row["logger"] == "api.access"]
    assert {row["route"] for row in access} >= {"/v1/ask", "/v1/collections/{name}/documents/{document_id:path}"}
    assert {row["key"] for row in access} == {key.split("_")[1]}
    assert all({"method", "status", "ms", "bytes", "at", "level"} <= set(row) for row in access)
    told = "\n".join(lines) + (served.home / "audit.jsonl").read_text()
    assert "zebrafinch" not in told
    assert key not in told
    assert key.split("_", 2)[2] not in told
    kept = b"".join(path.read_bytes() for path in served.home.glob("service.sqlite*"))
    assert b"zebrafinch" not in kept.replace(b"zebrafinch.txt", b"")        # jobs keep the names of their files


def test_a_defect_is_logged_without_what_the_caller_sent(served: Live, caplog: pytest.LogCaptureFixture) -> None:
    served.reader.error = ZeroDivisionError("zebrafinch")
    error = problem(served.ask(), 500, "internal_error")
    assert "zebrafinch" not in json.dumps(error)
    [record] = [record for record in caplog.records if record.name == "api.errors"]
    line = json.loads(JsonLines().format(record))
    assert line["error"]["type"] == "ZeroDivisionError"
    assert any("generate" in frame for frame in line["error"]["frames"])
    assert "zebrafinch" not in json.dumps(line)
    served.reader.error = None
    assert served.ask().status_code == 200


def test_what_is_changed_and_who_is_refused_is_on_record(served: Live) -> None:
    key = served.key(scopes=("write",))
    client = served.client(key)
    client.post("/v1/collections", json={"name": "x"})
    client.post("/v1/collections/x/documents", files=UPLOAD)
    client.delete("/v1/collections/default/documents/pump", headers={"X-Request-Id": "r-1"})
    client.get("/metrics")
    served.client().get("/v1/collections")
    rows = [json.loads(line) for line in (served.home / "audit.jsonl").read_text().splitlines()]
    key_id = key.split("_")[1]
    assert [(row["action"], row["key"], row["target"], row["outcome"]) for row in rows] == [
        ("collection.create", key_id, "x", "done"), ("documents.upload", key_id, "x: 1 files", "done"),
        ("documents.delete", key_id, "default", "done"), ("refused", key_id, "admin", "scope_missing"),
        ("refused", "nobody", "", "key_missing")]
    assert rows[2]["request_id"] == "r-1"


def test_nobody_can_fill_the_disk_with_refusals(served: Live) -> None:
    served.key()
    client = served.client()
    for _ in range(150):
        problem(client.get("/v1/collections"), 401, "key_missing")
    assert 60 <= len((served.home / "audit.jsonl").read_text().splitlines()) < 150


def test_messages_name_no_folder_of_this_machine(served: Live) -> None:
    store = served.home / "collections" / "default" / "store.sqlite"
    served.service.shelf.close()
    for path in store.parent.glob("store.sqlite*"):
        path.unlink()
    store.write_bytes(b"garbage, not SQLite at all" * 100)
    response = served.client().get("/v1/collections/default")
    error = problem(response, 503, "snapshot_corrupt")
    assert str(served.home) not in response.text
    assert "HOME/collections/default/store.sqlite" in error["message"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_others_than_this_machine_are_not_listened_to_without_a_key(tmp_path: Path, host: str) -> None:
    service = Service(make_settings(tmp_path), ServerSettings(host=host, port=0))
    with pytest.raises(ConfigError) as refused:
        server.bind(service)
    assert refused.value.code == "keys_needed"
    key, _ = keys.create(service.database, "web", terms=keys.Terms())
    keys.revoke(service.database, key.id)
    with pytest.raises(ConfigError):
        server.bind(service)
    service.close()


def test_with_a_key_any_address_is_listened_on_and_the_key_asked_for(tmp_path: Path) -> None:
    service = Service(make_settings(tmp_path), ServerSettings(host="0.0.0.0", port=0))
    keys.create(service.database, "web", terms=keys.Terms())
    server.bind(service).close()
    assert service.asks_for_keys()
    service.close()


def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    service = Service(make_settings(tmp_path), ServerSettings(port=0))
    listening = server.bind(service)
    listening.listen()
    taken = Service(make_settings(tmp_path), ServerSettings(port=listening.getsockname()[1]))
    with pytest.raises(ConfigError) as refused:
        server.bind(taken)
    assert refused.value.code == "address_unusable"
    listening.close()
    service.close()
    taken.close()


def test_which_addresses_are_this_machine_alone() -> None:
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "", "localhost.evil.example"))
