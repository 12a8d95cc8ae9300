"""The page as users meet it: the command that serves, real models, a real file, and a browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rag.models import ModelCache
from tests.page_fakes import NO_BROWSER, UNTIL_MS, answered, ask, chromium

pytest.importorskip("playwright", reason="the page is tested with the package playwright")
from playwright.sync_api import expect

SMALL = "qwen2.5-coder-0.5b-instruct"
PUMP = "The Zeta 4 pump is sold with a warranty of 27 months. Spare parts are kept in Rotterdam.\n"


def test_a_file_is_dropped_asked_about_and_cited(tmp_path: Path, model_cache: ModelCache) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "THRIFTRAG_HOME": str(tmp_path / "home"), "LANG": "C",
                   "THRIFTRAG_MODELS": str(model_cache.root), "THRIFTRAG_READER": SMALL}
    (tmp_path / "pump.txt").write_text(PUMP)
    with chromium() as browser, (tmp_path / "log").open("w") as log:
        if browser is None:
            pytest.skip(NO_BROWSER)
        process = subprocess.Popen([sys.executable, "-m", "rag.cli", "serve", "--port", "0", "--json"], stdout=subprocess.PIPE,
                                   stderr=log, text=True, env=environment)
        try:
            assert process.stdout is not None
            page = browser.new_page()
            page.set_default_timeout(4 * UNTIL_MS)
            expect.set_options(timeout=4 * UNTIL_MS)
            page.goto(json.loads(process.stdout.readline())["url"])
            page.get_by_role("link", name="Make a collection").click()
            page.get_by_label("New collection").fill("manual")
            page.get_by_role("button", name="Create").click()
            expect(page.locator("#collection-facts")).to_contain_text("manual: 0 documents")
            page.locator("#files").set_input_files(tmp_path / "pump.txt")
            expect(page.get_by_role("article", name="pump.txt")).to_contain_text("1 added; 1 passage.")
            page.get_by_role("link", name="Ask", exact=True).click()
            ask(page, "For how many months is the Zeta 4 pump under warranty?")
            answered(page)
            expect(page.locator(".said")).to_contain_text("27")
            expect(page.get_by_role("region", name="Receipt")).to_contain_text(f"{SMALL}, 1 call")
            page.locator(".citations button").first.click()
            expect(page.locator("#source-facts")).to_contain_text(f"{len(PUMP)} characters")
            expect(page.locator("#source mark")).to_contain_text("27 months")
        finally:
            process.kill()
            process.wait()
