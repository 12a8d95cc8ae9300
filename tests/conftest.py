"""Fixtures that several test files share. Tests marked by needing `model_cache` run real models from the user's cache."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.logs import JsonLines
from rag.models import ModelCache
from rag.settings import Settings, load

# How much the fuzz tests try; docs/api.md has the command for a long run.
FUZZ = "--fuzz"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(FUZZ, type=int, default=300, help="bodies that the fuzz tests send, and ten times as many as files")


def pytest_configure() -> None:
    """A shell starts what it runs in the background deaf to Ctrl-C, and so would be every process that a test starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fuzz(request: pytest.FixtureRequest) -> int:
    """How many bodies to try."""
    return int(request.config.getoption(FUZZ))


SAMPLE = Path(__file__).parent.parent / "eval" / "data" / "sample"


@pytest.fixture(scope="session")
def model_cache() -> ModelCache:
    """The user's model cache. `make test` fills it before the suite runs; a missing model is an error, not a skip."""
    return ModelCache(load({}, environ=os.environ).models)


@pytest.fixture(scope="session")
def reader_folder(model_cache: ModelCache) -> Path:
    """The converted 0.5B reader."""
    return model_cache.path("qwen2.5-coder-0.5b-instruct")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Defaults with a home of their own; nothing of the user's environment or files."""
    return load({"home": tmp_path / "home", "models": tmp_path / "models"}, environ={})


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own THRIFTRAG_* variables must not decide what a test sees; where the models are, they may."""
    for name in list(os.environ):
        if name.startswith("THRIFTRAG_") and name != "THRIFTRAG_MODELS":
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logs_end_with_their_test() -> Iterator[None]:
    """The service's own log handler ends with the test that made it: it would go on writing to a stream that is closed by then."""
    yield
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if not isinstance(handler.formatter, JsonLines)]
