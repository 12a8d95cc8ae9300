"""The page, through its real buttons in a headless Chromium: documents, collections, keys, usage, the frontier, and whether
everybody can use it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eval import last
from tests.api_fakes import live
from tests.page_fakes import NO_BROWSER, PHONE, answered, ask, chromium, opened
from tests.unit.test_api_page import TUNED

pytest.importorskip("playwright", reason="the page is tested with the package playwright")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

REFUSALS = ("Failed to load resource",)     # how a browser tells that a request was answered with an error
VALVE = re.compile(r"^Delete .*valve\.txt$")
DROP = """([name, text]) => {
  const files = new DataTransfer();
  files.items.add(new File([text], name));
  document.getElementById("upload").dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true}));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        if found is None:
            pytest.skip(NO_BROWSER)
        yield found


def test_documents_come_in_by_choosing_and_dropping_and_go_after_a_second_thought(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path) as served, opened(browser, served, view="documents") as page:
        rows = page.locator("#document-list tbody tr")
        expect(rows).to_have_count(2)
        (tmp_path / "valve.txt").write_text("The valve of hall seven is green.\n")
        (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing after it")
        served.ingestion.gate.clear()
        page.locator("#files").set_input_files([tmp_path / "valve.txt", tmp_path / "broken.pdf"])
        job = page.get_by_role("article", name="2 files")
        expect(job).to_contain_text("Encoding")
        served.ingestion.gate.set()
        expect(job).to_contain_text("1 added")
        expect(job.get_by_role("listitem")).to_contain_text("broken.pdf")
        expect(rows).to_have_count(3)
        expect(page.locator("#collection-facts")).to_contain_text("3 documents")
        page.evaluate(DROP, ["hall.md", "# Hall\n\nHall nine is closed on Mondays.\n"])
        expect(page.get_by_role("article", name="hall.md")).to_contain_text("1 added")
        expect(rows).to_have_count(4)
        served.ingestion.gate.clear()
        page.evaluate(DROP, ["late.txt", "This never comes in.\n"])
        expect(page.get_by_role("article", name="late.txt")).to_contain_text("Encoding")
        page.get_by_role("button", name="Cancel late.txt").click()
        expect(page.get_by_role("article", name="late.txt")).to_contain_text("Cancelled")
        served.ingestion.gate.set()

        page.get_by_role("button", name=VALVE).click()
        question = page.get_by_role("dialog")
        expect(question.get_by_role("button", name="Keep")).to_be_focused()
        page.keyboard.press("Escape")
        expect(rows).to_have_count(4)
        expect(page.get_by_role("button", name=VALVE)).to_be_focused()
        page.get_by_role("button", name=VALVE).click()
        question.get_by_role("button", name="Delete").click()
        expect(rows).to_have_count(3)
        expect(page.locator("#list-title")).to_be_focused()
        rest = served.client().get("/v1/collections/default/documents").json()["documents"]
        assert [row["source"].endswith("valve.txt") for row in rest] == [False] * 3


def test_an_upload_is_watched_again_after_the_page_was_left(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path) as served, opened(browser, served, view="documents") as page:
        served.ingestion.gate.clear()
        page.evaluate(DROP, ["hall.md", "# Hall\n\nHall nine is closed on Mondays.\n"])
        expect(page.get_by_role("article", name="hall.md")).to_contain_text("Encoding")
        page.reload()
        expect(page.get_by_role("article", name="hall.md")).to_be_visible()
        served.ingestion.gate.set()
        expect(page.get_by_role("article", name="hall.md")).to_contain_text("1 added")


def test_collections_are_made_chosen_and_deleted_and_empty_ones_say_what_to_do(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path, collection=False) as served, opened(browser, served, complaints=REFUSALS, ready=False) as page:
        expect(page.locator("#results")).to_contain_text("No collection yet")
        page.get_by_role("link", name="Make a collection").click()
        page.get_by_role("button", name="Create").click()
        expect(page.locator("#create-error")).to_have_text("Give it a name.")
        page.get_by_label("New collection").fill("no spaces, please")
        page.get_by_role("button", name="Create").click()
        expect(page.locator("#create-error")).not_to_be_empty()
        for name in ("manual", "archive"):
            page.get_by_label("New collection").fill(name)
            page.get_by_role("button", name="Create").click()
            expect(page.locator("#collection")).to_have_value(name)
        expect(page.locator("#document-list")).to_contain_text("No documents yet")
        page.locator("#collection").select_option("manual")
        expect(page.locator("#collection-facts")).to_contain_text("manual: 0 documents")
        page.get_by_role("button", name="Delete the collection manual").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
        expect(page.locator("#collection")).to_have_value("archive")
        assert [row["name"] for row in served.client().get("/v1/collections").json()["collections"]] == ["archive"]


def test_with_keys_the_page_can_do_nothing_without_one_and_keeps_it_for_the_tab_alone(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path) as served:
        key = served.key("web", scopes=("read",))
        with opened(browser, served, complaints=REFUSALS, ready=False) as page:
            dialog = page.get_by_role("dialog", name="API key")
            expect(dialog).to_be_visible()
            assert page.locator("#collection option:not([value=''])").count() == 0
            expect(dialog.get_by_label("Key")).to_be_focused()
            page.keyboard.type("trk_wrong")
            page.keyboard.press("Enter")
            expect(page.locator("#key-error")).to_contain_text("not valid")
            dialog.get_by_label("Key").fill(key)
            page.keyboard.press("Enter")
            expect(dialog).to_be_hidden()
            ask(page)
            answered(page)
            expect(page.locator(".badge")).to_have_text("answered")
            page.get_by_role("link", name="Documents").click()
            expect(page.locator("#upload-refused")).to_be_visible()
            expect(page.locator("#upload")).to_be_hidden()
            assert page.get_by_role("button", name="Delete").count() == 0
            page.reload()
            expect(page.locator("#document-list tbody tr")).to_have_count(2)
            assert key not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
            assert page.evaluate("Object.values(sessionStorage)").count(key) == 1
            page.get_by_role("button", name="Key", exact=True).click()
            page.get_by_role("button", name="Forget it").click()
            expect(dialog).to_be_visible()
            assert key not in page.evaluate("JSON.stringify(sessionStorage)")


def test_usage_adds_up_and_the_frontier_shows_what_was_measured(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path) as served, opened(browser, served, view="usage") as page:
        expect(page.locator("#usage-body")).to_contain_text("Nothing was asked in this time")
        receipts = [served.ask().json()["receipt"] for _ in range(2)]
        page.get_by_label("by").select_option("collection")
        total = sum(row["prompt_tokens"] for row in receipts)
        expect(page.locator("#usage-body tbody tr")).to_contain_text(["default"])
        expect(page.locator(".totals")).to_contain_text(f"{total}")
        page.get_by_label("by").select_option("day")
        expect(page.locator("#usage-body svg rect.spent")).to_have_count(1)
        page.get_by_role("link", name="Frontier").click()
        expect(page.locator("#frontier-body")).to_contain_text("thriftrag tune -c default")
        last.keep(tmp_path / "collections" / "default" / last.TUNING, TUNED)
        page.reload()
        expect(page.locator("#frontier-body .recommended")).to_have_text("Budget 64 keeps it.")
        expect(page.locator("#frontier-body tbody tr")).to_contain_text(["greedy"])
        expect(page.locator("#frontier-body svg circle")).to_have_count(1)
        page.get_by_role("link", name="Ask", exact=True).click()
        expect(page.locator("#hint")).to_have_text(
            "Measured on questions from these documents: greedy at 64 tokens reaches F1 71.0 [60, 80], n = 40.")


def test_the_keyboard_alone_asks_reads_and_returns(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path) as served, opened(browser, served) as page:
        expect(page.get_by_role("textbox", name="Question")).to_be_focused()
        page.keyboard.type("How long is the warranty")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("of the Zeta pump?")
        expect(page.get_by_role("textbox", name="Question")).to_have_value("How long is the warranty\nof the Zeta pump?")
        page.keyboard.press("Enter")
        answered(page)
        for _ in range(25):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.className") == "cite":
                break
        page.keyboard.press("Enter")
        expect(page.locator("#source-title")).to_be_focused()
        expect(page.locator("#source mark")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(".cite")).to_be_focused()
        page.locator("body").focus()
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        page.get_by_role("link", name="Usage").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Usage")).to_be_focused()
        assert page.title() == "Usage · ThriftRAG"
        assert page.get_by_role("link", name="Usage").get_attribute("aria-current") == "page"


def test_the_theme_follows_the_system_until_it_is_chosen_and_is_remembered(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path) as served, opened(browser, served, color_scheme="dark") as page:
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.get_by_role("button", name="Theme: as the system").click()
        light = page.evaluate(background)
        assert light != dark
        page.reload()
        expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
        assert page.evaluate(background) == light
        page.get_by_role("button", name="Theme: light").click()
        assert page.evaluate(background) == dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_in_the_way_of_screen_readers_low_vision_or_a_phone(browser: Browser, tmp_path: Path, scheme: str) -> None:
    """Every rule of axe for WCAG 2.2 A and AA, contrast among them; and no sideways scrolling at 360 pixels."""
    pytest.importorskip("axe_playwright_python", reason="accessibility is checked with axe")
    with live(tmp_path) as served:
        last.keep(tmp_path / "collections" / "default" / last.TUNING, TUNED)
        # axe is injected into the page, which its policy forbids for good reason.
        with opened(browser, served, color_scheme=scheme, viewport=PHONE, bypass_csp=True) as page:
            page.get_by_text("More options").click()
            page.get_by_label("Compare with naive").check()
            ask(page)
            answered(page)
            page.get_by_text("Every stage").first.click()
            _fine(page)
            page.get_by_role("button", name="Citation 1").first.click()
            expect(page.locator("#source mark")).to_be_visible()
            _fine(page)
            page.keyboard.press("Escape")
            for name, ready in (("Documents", "#document-list tr"), ("Usage", "#usage-body svg"),
                                ("Frontier", "#frontier-body svg")):
                page.get_by_role("link", name=name, exact=True).click()
                expect(page.locator(ready).first).to_be_visible()
                _fine(page)
            page.get_by_role("link", name="Documents").click()
            page.get_by_role("button", name=re.compile("^Delete ")).first.click()
            expect(page.get_by_role("dialog")).to_be_visible()
            _fine(page)


def _fine(page: Page) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
    assert found.violations_count == 0, found.generate_report()
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]
