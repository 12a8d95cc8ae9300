"""The ledger, feedback, figures and the description of the API."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api import errors as api_errors
from api.errors import Later, status_of
from api.schemas import chat, responses
from api.schemas.codes import CODES
from rag import errors as rag_errors
from rag.errors import RagError
from tests.api_fakes import Live, live, problem


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("home"), settings={"price_prompt": 1.0, "price_completion": 2.0}) as running:
        yield running


def test_the_ledger_sums_what_the_receipts_say(tmp_path: Path) -> None:
    with live(tmp_path, settings={"price_prompt": 1.0, "price_completion": 2.0}) as served:
        one, two, admin = (served.client(served.key(scopes=(scope,))) for scope in ("read", "read", "admin"))
        receipts = [served.ask(client=client).json()["receipt"] for client in (one, one, two)]
        served.ask("qwertz uiop", client=one, filters={"year": 5})
        one.post("/v1/search", json={"query": "warranty"})
        problem(one.post("/v1/ask", json={"question": ""}), 422, "question_empty")
        mine = one.get("/v1/usage", params={"group_by": "endpoint,outcome,key"}).json()
        assert mine["group_by"] == ["key", "endpoint", "outcome"]
        assert [(row["endpoint"], row["outcome"], row["requests"]) for row in mine["rows"]] == [
            ("ask", "abstained", 1), ("ask", "answered", 2), ("search", "found", 1)]
        assert {row["key"] for row in mine["rows"]} == {str(one.headers["authorization"]).split("_")[1]}
        for name in ("prompt_tokens", "completion_tokens", "llm_calls"):
            assert mine["total"][name] == sum(receipt[name] for receipt in receipts[:2])
        everyone = admin.get("/v1/usage", params={"group_by": "model"}).json()
        answered = next(row for row in everyone["rows"] if row["model"] == "paced")
        assert answered["cost_usd"] == pytest.approx(sum(receipt["cost_usd"] for receipt in receipts))
        assert answered["cost_usd"] > 0
        assert everyone["total"]["requests"] == 5
        today = datetime.now(UTC).date().isoformat()
        assert admin.get("/v1/usage", params={"since": today}).json()["total"]["requests"] == 5
        assert admin.get("/v1/usage", params={"until": "2001-01-01"}).json()["total"]["requests"] == 0
        assert admin.get("/v1/usage", params={"until": "2001-01-01"}).json()["total"]["cost_usd"] == 0


def test_feedback_is_kept_for_answers_that_were_given(served: Live) -> None:
    client = served.client()
    answer_id = served.ask().json()["id"]
    kept = client.post("/v1/feedback", json={"answer_id": answer_id, "rating": "down", "comment": "Too short.", "expected": "27"})
    assert kept.status_code == 201
    [row] = served.service.database.rows("SELECT * FROM feedback WHERE id = ?", (kept.json()["id"],))
    assert (row["answer"], row["rating"], row["comment"], row["expected"]) == (answer_id, "down", "Too short.", "27")
    problem(client.post("/v1/feedback", json={"answer_id": "nothing", "rating": "up"}), 404, "answer_missing")
    for wrong in ({"answer_id": answer_id, "rating": "maybe"}, {"answer_id": answer_id}, {"answer_id": "", "rating": "up"},
                  {"answer_id": answer_id, "rating": "up", "comment": "x" * 4001}):
        problem(client.post("/v1/feedback", json=wrong), 422, "input_invalid")


def test_figures_are_told_to_prometheus(tmp_path: Path) -> None:
    with live(tmp_path) as served:
        client = served.client()
        receipt = served.ask().json()["receipt"]
        problem(served.ask(" "), 422, "question_empty")
        client.get("/v1/secret-path-of-a-client")
        response = client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        figures = dict(re.findall(r"^(thriftrag_\S+?(?:{.*})?) (\S+)$", response.text, re.MULTILINE))
        assert float(figures['thriftrag_tokens_total{kind="prompt"}']) == receipt["prompt_tokens"]
        assert float(figures['thriftrag_tokens_total{kind="completion"}']) == receipt["completion_tokens"]
        assert figures["thriftrag_budget_violations_total"] == "0.0"
        assert figures['thriftrag_answers_total{outcome="answered"}'] == "1.0"
        assert figures['thriftrag_stage_seconds_count{stage="generate"}'] == "1.0"
        assert figures['thriftrag_requests_total{method="POST",route="/v1/ask",status="200"}'] == "1.0"
        assert figures['thriftrag_requests_total{method="POST",route="/v1/ask",status="422"}'] == "1.0"
        assert figures['thriftrag_requests_total{method="GET",route="none",status="404"}'] == "1.0"
        assert figures['thriftrag_queued{lane="ask"}'] == figures['thriftrag_running{lane="ask"}'] == "0.0"
        assert "secret-path" not in response.text


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_description_is_openapi_3_1_with_examples_errors_and_scopes(served: Live) -> None:
    schema = served.client().get("/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    assert {(method.upper(), path) for path, method, _ in operations(schema)} == {
        ("POST", "/v1/ask"), ("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/{model}"),
        ("POST", "/v1/search"), ("GET", "/v1/collections"), ("POST", "/v1/collections"),
        ("GET", "/v1/collections/{name}"), ("DELETE", "/v1/collections/{name}"), ("POST", "/v1/collections/{name}/documents"),
        ("GET", "/v1/collections/{name}/documents"), ("GET", "/v1/collections/{name}/documents/{document_id}"),
        ("DELETE", "/v1/collections/{name}/documents/{document_id}"), ("GET", "/v1/jobs/{job_id}"), ("DELETE", "/v1/jobs/{job_id}"),
        ("GET", "/v1/jobs/{job_id}/events"), ("GET", "/v1/usage"), ("GET", "/v1/collections/{name}/chunks/{chunk_id}"),
        ("GET", "/v1/settings"), ("GET", "/v1/frontier"), ("GET", "/v1/jobs"), ("POST", "/v1/feedback"), ("GET", "/healthz"),
        ("GET", "/readyz"), ("GET", "/metrics")}
    for path, _, operation in operations(schema):
        assert operation["summary"]
        if path.startswith("/v1"):
            assert operation["x-scope"] in ("read", "write")
            assert operation["security"] == [{"key": []}]
            for status in ("401", "403", "429"):
                content = operation["responses"][status]["content"]["application/json"]
                openai = path.startswith(("/v1/chat", "/v1/models"))
                assert content["schema"] == {"$ref": f"#/components/schemas/{'OpenAIErrorBody' if openai else 'ErrorBody'}"}
                assert list(content["example"]["error"]) == (["message", "type", "param", "code", "request_id"] if openai else [
                    "code", "message", "hint", "field", "request_id"])
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    asked = schema["components"]["schemas"]["AskRequest"]
    assert asked["required"] == ["question"]
    assert asked["additionalProperties"] is False
    assert "greedy" in asked["properties"]["selector"]["enum"]
    assert "event: done" in schema["paths"]["/v1/ask"]["post"]["responses"]["200"]["content"]["text/event-stream"]["example"]
    refs = set(re.findall(r'"#/components/schemas/(\w+)"', served.client().get("/openapi.json").text))
    assert refs <= set(schema["components"]["schemas"])


def test_every_operation_shows_what_it_takes_and_gives(served: Live) -> None:
    schema = served.client().get("/openapi.json").json()
    models = {**vars(responses), **vars(chat)}
    for path, method, operation in operations(schema):
        for status, response in operation["responses"].items():
            for kind, content in response["content"].items():
                assert "example" in content, (method, path, status, kind)
                name = content["schema"].get("$ref", "").rpartition("/")[2]
                if name:    # an example that its own description forbids would mislead
                    models[name].model_validate(content["example"])
                    assert set(models[name].model_fields) == set(content["example"]), name
                if name == "ErrorBody":
                    assert content["example"]["error"]["code"] in CODES[int(status)]
                    assert f"`{CODES[int(status)][0]}`" in response["description"]
        for parameter in operation.get("parameters", ()):
            assert parameter["example"], (path, parameter)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content["schema"].get("$ref", "").rpartition("/")[2]
            fields = schema["components"]["schemas"][name]["properties"].values() if name else ()
            assert "example" in content or any("examples" in field or "$ref" in field for field in fields), path
    assert "400" in schema["paths"]["/v1/ask"]["post"]["responses"]


def test_the_codes_of_errors_are_those_of_the_guide_and_none_is_missing() -> None:
    """Every class of error, and every code that the service itself gives, is in the table under its status."""
    table = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8").partition("| status | codes |")[2]
    rows = [line.split("|")[1:3] for line in table.partition("\n\n")[0].splitlines() if line.count("|") == 3]
    guide = {code for _, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert guide == {code for codes in CODES.values() for code in codes}
    kinds = {name: kind for module in (rag_errors, api_errors) for name, kind in vars(module).items()
             if isinstance(kind, type) and issubclass(kind, RagError)}
    given = {(kind, kind.code) for kind in kinds.values()}
    for file in (Path(__file__).parents[2] / "api").rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kinds:
                given |= {(kinds[call.func.id], word.value.value) for word in call.keywords
                          if word.arg == "code" and isinstance(word.value, ast.Constant) and isinstance(word.value.value, str)}
    # Bases that nobody raises, files of a job, what the command line alone meets, and codes of OpenAI.
    elsewhere = {"error", "conflict", "snapshot_error", "file_unsupported", "file_unreadable", "ingestion_died", "ingestion_killed",
                 "keys_needed", "address_unusable", "unknown_setting", "model_not_found"}
    missing = {(status_of(kind("")), code) for kind, code in given if not issubclass(kind, Later) and code not in elsewhere
               and code not in CODES.get(status_of(kind("")), ())}
    assert missing - {(422, "key_missing")} == set()    # of `thriftrag keys revoke`
    assert {code for kind, code in given if issubclass(kind, Later)} <= guide


def test_what_is_described_is_what_is_sent(served: Live) -> None:
    """The models describe; the values come from elsewhere. Here both are compared, field by field."""
    client = served.client()
    answer = served.ask().json()
    assert list(responses.Answer.model_fields) == list(answer)
    assert list(responses.Receipt.model_fields) == list(answer["receipt"])
    assert list(responses.Citation.model_fields) == list(answer["citations"][0])
    found = client.post("/v1/search", json={"query": "warranty"}).json()
    assert list(responses.SearchResult.model_fields) == list(found)
    assert list(responses.Hit.model_fields) == list(found["hits"][0])
    assert list(responses.Collection.model_fields) == list(client.get("/v1/collections/default").json())
    page = client.get("/v1/collections/default/documents").json()
    assert list(responses.Documents.model_fields) == list(page)
    assert list(responses.DocumentRow.model_fields) == list(page["documents"][0])
    assert list(responses.Document.model_fields) == list(client.get("/v1/collections/default/documents/pump").json())
    job = client.post("/v1/collections/default/documents", files=[("files", ("a.txt", b"Text.\n"))]).json()
    assert list(responses.Job.model_fields) == list(job)
    assert list(responses.Usage.model_fields) == list(client.get("/v1/usage").json())
    responses.Answer.model_validate(answer)
    responses.SearchResult.model_validate(found)
    responses.Job.model_validate(job)
    assert set(responses.ANSWER_EXAMPLE) == set(answer)
