"""The service against its own description, by schemathesis: what the description allows and what it forbids, over every route."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.api_fakes import Live, live

schemathesis = pytest.importorskip("schemathesis", reason="extra dev")
KNOWN = {"name": "default", "document_id": "pump"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("home")) as running:
        yield running


def test_no_request_that_can_be_made_of_the_description_is_a_500(served: Live, fuzz: int) -> None:
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import response_schema_conformance

    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    seen = []
    for found in schema.get_all_operations():
        operation = found.ok()
        seen.append((operation.method.upper(), operation.path))
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            strategy: Any = operation.as_strategy(generation_mode=mode)

            @given(case=strategy)
            @settings(max_examples=max(5, fuzz // 30), derandomize=True, deadline=None, database=None,
                      suppress_health_check=list(HealthCheck))
            def tried(case: Any) -> None:
                if case.method == "DELETE" and case.path_parameters.get("name") == "default":
                    return          # the collection that the other routes are asked about
                response = case.call(base_url=served.url, timeout=60)
                case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])

            try:
                tried()
            except Exception as error:
                if "Unsatisfiable" in type(error).__name__ or "Unsatisfiable" in str(error):
                    continue        # this route has nothing that the description forbids
                raise
    assert ("POST", "/v1/ask") in seen
    assert len(seen) >= 15
    served.quiet()
    assert served.ask().status_code == 200
