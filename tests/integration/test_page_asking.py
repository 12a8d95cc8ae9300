"""The page, through its real buttons in a headless Chromium, over a real server: asking, reading, comparing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rag.errors import ModelUnavailable
from tests.api_fakes import QUESTION, Live, live, make_collection, make_settings, wait_until
from tests.fakes import WordEncoder
from tests.page_fakes import NO_BROWSER, answered, ask, chromium, opened

pytest.importorskip("playwright", reason="the page is tested with the package playwright")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = ('Pump <script>window.pwned=1</script> & <img src=x onerror="window.pwned=2">. The Zeta pump has a warranty of '
           "27 months </p><style>body{display:none}</style><a href=javascript:window.pwned=3>here</a>.")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        if found is None:
            pytest.skip(NO_BROWSER)
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("home"), settings={"price_prompt": 1.5, "price_completion": 6.0}) as made:
        yield made


def test_an_answer_comes_word_by_word_and_its_citation_opens_the_source(browser: Browser, served: Live) -> None:
    with opened(browser, served) as page:
        served.reader.gate.clear()
        ask(page)
        said = page.locator(".said")
        expect(said).to_have_text("27")
        expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
        expect(page.locator(".stages .now")).to_have_text("Answering")
        expect(page.get_by_role("button", name="Ask", exact=True)).to_be_disabled()
        served.reader.gate.set()
        answered(page)
        expect(page.locator(".badge")).to_have_text("answered")
        expect(said).to_have_text("27 months 1.")
        expect(page.locator("#progress")).to_contain_text("1 citation")
        receipt = page.get_by_role("region", name="Receipt")
        row = served.ask().json()["receipt"]
        expect(receipt).to_contain_text(f"{row['context_tokens']} of 256 in the budget")
        expect(receipt.get_by_role("img", name="Tokens against the top 5 passages")).to_have_attribute(
            "aria-label", f"Tokens against the top 5 passages: context {row['context_tokens']}, instructions and question "
                          f"{row['prompt_tokens'] - row['context_tokens']}, answer 4"
                          + (f", saved of {row['naive_tokens']} {row['saved_tokens']}" if row["saved_tokens"] > 0 else ""))
        kept = page.locator(".trace tr.kept")
        expect(kept).to_have_count(1)
        expect(kept).to_contain_text("kept")
        page.get_by_role("button", name="Citation 1").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("heading")).to_have_text("Pump")
        expect(dialog.locator("mark.cited")).to_have_text("The Zeta pump has a warranty of 27 months.")
        expect(dialog.locator("mark.cited")).to_be_in_viewport()
        dialog.get_by_role("button", name="Close").click()
        expect(page.get_by_role("button", name="Citation 1")).to_be_focused()
        kept.get_by_role("button").click()
        expect(dialog.locator("mark").first).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        page.get_by_role("button", name="Yes").click()
        expect(page.locator(".feedback")).to_contain_text("Thank you")
        assert served.service.database.rows("SELECT rating FROM feedback")[0]["rating"] == "up"


def test_cancelling_stops_the_reader_and_the_page_asks_again(browser: Browser, served: Live) -> None:
    with opened(browser, served) as page:
        served.reader.stopped_at = None
        served.reader.gate.clear()
        ask(page)
        expect(page.locator(".said")).to_have_text("27")
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.locator(".badge")).to_have_text("cancelled")
        expect(page.locator("#progress")).to_have_text("Cancelled.")
        wait_until(lambda: served.reader.stopped_at is not None)
        served.reader.gate.set()
        served.quiet()
        outcomes = {row["outcome"] for row in served.client().get("/v1/usage", params={"group_by": "outcome"}).json()["rows"]}
        assert "cancelled" in outcomes
        ask(page)
        answered(page)
        expect(page.locator(".badge")).to_have_text("answered")


def test_the_budget_follows_the_keys_and_the_price_follows_the_budget(browser: Browser, served: Live) -> None:
    with opened(browser, served) as page:
        slider, exact, price = page.get_by_role("slider"), page.get_by_label("Context budget in tokens"), page.locator("#price")
        expect(exact).to_have_value("256")
        before = price.inner_text()
        slider.focus()
        page.keyboard.press("ArrowRight")
        expect(exact).to_have_value("384")
        expect(slider).to_have_attribute("aria-valuetext", "384 tokens")
        # 128 tokens more at $1.5 a million.
        dollars = [float(found) for text in (before, price.inner_text()) for found in re.findall(r"\$([0-9]+\.[0-9]+)", text)]
        assert dollars[1] - dollars[0] == pytest.approx(128 * 1.5e-6, abs=1e-6)
        exact.fill("50")
        expect(slider).to_have_attribute("aria-valuetext", "50 tokens")
        sent: list[dict[str, object]] = []
        page.on("request", lambda request: sent.append(request.post_data_json) if request.method == "POST" else None)
        page.get_by_text("More options").click()
        page.get_by_label("Selector").select_option("mmr")
        page.get_by_label("At most, seconds").fill("45")
        page.get_by_label("Only documents whose fields match").fill('{"year": {"gte": 2020}}')
        ask(page)
        answered(page)
        assert sent[0] == {"question": QUESTION, "collection": "default", "budget_tokens": 50, "selector": "mmr",
                           "model": sent[0]["model"], "deadline_s": 45, "filters": {"year": {"gte": 2020}}, "stream": True}
        page.get_by_label("Only documents whose fields match").fill("year > 2020")
        ask(page)
        expect(page.locator("#question-error")).to_contain_text("no JSON")


def test_the_same_question_is_answered_by_the_naive_fill_beside_ours(browser: Browser, served: Live) -> None:
    with opened(browser, served) as page:
        sent: list[dict[str, object]] = []
        page.on("request", lambda request: sent.append(request.post_data_json) if request.url.endswith("/v1/ask") else None)
        page.get_by_label("Compare with naive top-5").check()
        ask(page)
        answered(page)
        expect(page.get_by_role("article", name="ThriftRAG").locator(".badge")).to_have_text("answered")
        theirs = page.get_by_role("article", name="Naive top-5")
        expect(theirs.locator(".badge")).to_have_text("answered")
        expect(page.locator(".compared")).to_contain_text("filling in the top 5 passages whole took")
        assert [body["selector"] for body in sent] == ["greedy", "topk_whole"]
        receipt = served.ask(selector="topk_whole", budget_tokens=sent[1]["budget_tokens"]).json()["receipt"]
        assert receipt["prompt_tokens"] == receipt["naive_tokens"]


def test_a_hostile_document_is_shown_as_the_text_it_is(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path, collection=False) as served:
        make_collection(make_settings(tmp_path), WordEncoder(), records=[
            {"id": "<img src=x onerror=window.pwned=4>", "title": "<script>window.pwned=5</script>", "text": HOSTILE}])
        served.reader.words = ("27 months ", "</p><style>body{display:none}", "</style>", " [1]")
        with opened(browser, served) as page:
            ask(page)
            answered(page)
            expect(page.locator(".said")).to_contain_text("27 months </p><style>body{display:none}</style>")
            expect(page.locator(".citations")).to_contain_text("<img src=x onerror=window.pwned=4>")
            page.locator(".citations button").click()
            expect(page.locator("#source mark").first).to_be_visible()
            expect(page.locator("#source-title")).to_have_text("<script>window.pwned=5</script>")
            expect(page.locator("#source-body")).to_contain_text("</p><style>body{display:none}</style><a href=")
            page.keyboard.press("Escape")
            page.get_by_role("link", name="Documents").click()
            expect(page.locator("#document-list")).to_contain_text("<script>window.pwned=5</script>")
            page.get_by_role("button", name="<script>window.pwned=5</script>").click()
            expect(page.locator("#source-body")).to_contain_text("<script>window.pwned=1</script>")
            assert page.evaluate("window.pwned") is None
            assert page.locator("main img, main script, main style, dialog img, dialog script").count() == 0


def test_what_goes_wrong_is_said_with_its_hint_and_the_page_goes_on(browser: Browser, served: Live) -> None:
    with opened(browser, served, complaints=("Failed to load resource",)) as page:
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator("#question-error")).to_have_text("Type a question first.")
        expect(page.get_by_label("Question")).to_be_focused()
        served.reader.error = ModelUnavailable("Nothing answers at the reader.", hint="Start it.")
        try:
            ask(page)
            expect(page.locator(".badge")).to_have_text("failed")
            expect(page.locator(".result .notice")).to_contain_text("Start it.")
            expect(page.locator(".result .notice")).to_contain_text("model_unavailable")
        finally:
            served.reader.error = None
        page.get_by_label("Context budget in tokens").fill("100001")
        ask(page)
        expect(page.locator(".result .notice")).to_contain_text("over the limit")
        page.route("**/v1/ask", lambda route: route.abort())
        page.get_by_label("Context budget in tokens").fill("128")
        ask(page)
        expect(page.locator(".result .notice")).to_contain_text("The server does not answer.")
        page.unroute("**/v1/ask")
        ask(page)
        expect(page.locator(".badge")).to_have_text("answered")


def test_what_was_out_of_the_ordinary_is_said_below_the_answer(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path, settings={"answer_cache": "on"}) as served, opened(browser, served, complaints=("503",)) as page:
        notes = page.get_by_role("list", name="How this answer came about")
        ask(page)
        answered(page)
        expect(notes).to_be_hidden()
        ask(page)
        answered(page)
        expect(notes).to_contain_text("Repeated from memory")
        assert len(served.reader.spent) == 1
        page.locator("summary", has_text="More options").click()
        page.get_by_label("Search anew").check()
        page.get_by_label("Further queries").select_option("bridge")
        ask(page)
        answered(page)
        expect(page.locator(".steps")).to_contain_text("rewrite")
        expect(notes).not_to_contain_text("memory")
        assert len(served.reader.spent) == 2
        served.reader.error = ModelUnavailable("The reader is not there.")
        page.get_by_label("If the reader fails").check()
        ask(page)
        answered(page)
        expect(page.locator(".badge")).to_have_text("degraded")
        expect(notes).to_contain_text("The reader failed")


def test_the_naive_fill_is_read_by_the_reader_and_not_repeated_from_memory(browser: Browser, tmp_path: Path) -> None:
    with live(tmp_path, settings={"answer_cache": "on"}) as served, opened(browser, served) as page:
        for _ in range(2):
            page.get_by_label("Compare with naive").check()
            ask(page)
            answered(page)
            expect(page.locator(".result .badge")).to_have_count(2)
            expect(page.locator(".compared")).to_be_visible()
        assert len(served.reader.spent) == 3        # ours once, the fill each time
