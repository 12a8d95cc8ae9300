"""Pages of a running server in a headless Chromium, watched for anything that a browser complains about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from api.web.browser import HOW_TO_GET_ONE, chromium
from tests.api_fakes import QUESTION, Live

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# A machine may be busy with other things.
UNTIL_MS = 60_000
NO_BROWSER = f"there is no Chromium on this machine, so the page was not tested: {HOW_TO_GET_ONE}"
PHONE = {"width": 360, "height": 740}


@contextmanager
def opened(browser: Browser, served: Live, *, view: str = "ask", complaints: tuple[str, ...] = (), ready: bool = True,
           **options: Any) -> Iterator[Page]:
    """The page once it is ready. Afterwards there must have been no uncaught error, and nothing on the console but what holds
    one of `complaints`; nor may anything have been asked of another server. `options`: those of a browser context."""
    from playwright.sync_api import expect

    expect.set_options(timeout=UNTIL_MS)
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(UNTIL_MS)
    said: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: said.append(f"uncaught {error}"))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{served.url}/#{view}")
    if ready:
        expect(page.locator("#selector option[selected]")).to_be_attached()
    try:
        yield page
    finally:
        context.close()
    assert [line for line in said if not any(known in line for known in complaints)] == []
    assert all(url.startswith((served.url, "data:", "about:")) for url in asked), asked


def ask(page: Page, question: str = QUESTION) -> None:
    page.get_by_role("textbox", name="Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def answered(page: Page) -> None:
    """Waits until everything has been answered."""
    from playwright.sync_api import expect

    expect(page.locator(".result .badge").first).to_be_visible()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_hidden()


__all__ = ["NO_BROWSER", "PHONE", "UNTIL_MS", "answered", "ask", "chromium", "opened"]
