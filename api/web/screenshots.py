"""Pictures of the page for the documentation: `python -m api.web.screenshots`.

A real server on loopback, the sample documents, a real reader, and the page's own buttons. Prices are an example, so that the
pictures show some; nothing else is made up. `--summary` takes the summary.json of an `eval run` for the picture of the frontier.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from api import server
from api import settings as server_settings
from api.service import Service
from api.web.browser import HOW_TO_GET_ONE, chromium
from eval import last
from rag.settings import load
from rag.thriftrag import ThriftRAG

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MOST_BYTES = 150_000
_SAMPLE = Path("eval/data/sample")
_PRICES = {"price_prompt": 0.15, "price_completion": 0.6}
_QUESTION = "When did Sax's patent expire?"
_FIRST = "What is a nickname for pond hockey?"
_COLLECTION = "sample"
_UNTIL_MS = 300_000
_COLOURS = 128
Step = Callable[["Page"], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """`steps` press what has to be pressed first; `size` in CSS pixels."""

    name: str
    steps: Step
    scheme: str = "light"
    size: tuple[int, int] = (1200, 860)
    view: str = "ask"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where there is no browser, or a picture came out too large."""
    parser = argparse.ArgumentParser(prog="python -m api.web.screenshots", description="Make the pictures of the page.")
    parser.add_argument("--out", type=Path, default=Path("docs/page"), help="folder for the PNG files (default: docs/page)")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct", help="reader that answers (default: %(default)s)")
    parser.add_argument("--summary", type=Path, help="summary.json of an eval run: adds the picture of the frontier")
    given = parser.parse_args(arguments)
    with chromium() as browser, tempfile.TemporaryDirectory() as home:
        if browser is None:
            print(f"There is no Chromium: {HOW_TO_GET_ONE}.", file=sys.stderr)
            return 1
        with _serving(Path(home), model=given.model, summary=given.summary) as url:
            given.out.mkdir(parents=True, exist_ok=True)
            fine = [_take(browser, url, picture, given.out) for picture in _pictures(given.summary is not None)]
    return 0 if all(fine) else 1


def _pictures(frontier: bool) -> list[Picture]:
    return [
        Picture("ask", _ask, size=(1200, 1010)),
        Picture("compare", _compare, scheme="dark"),
        Picture("source", _source, size=(1200, 760)),
        Picture("documents", _documents, view="documents", size=(1200, 760)),
        *([Picture("frontier", _nothing, view="frontier", size=(1200, 900))] if frontier else []),
        Picture("phone", _ask, size=(360, 1180)),
        Picture("phone-dark", _trace, size=(360, 1180), scheme="dark"),
    ]


@contextmanager
def _serving(home: Path, *, model: str, summary: Path | None) -> Iterator[str]:
    """The address of a server with the sample in it."""
    settings = load({"home": home, "reader": model, **_PRICES}, environ=os.environ)
    print("Reading in the sample...", file=sys.stderr)
    with ThriftRAG.open(_COLLECTION, settings=settings) as kb:
        kb.ingest(_SAMPLE / "corpus.jsonl", _SAMPLE / "files")
    if summary is not None:
        last.keep(home / last.EVALUATION, last.of_summary(json.loads(summary.read_text(encoding="utf-8"))))
    service = Service(settings, server_settings.load(home, {"port": 0}, environ={}))
    listening = server.bind(service)
    ready = threading.Event()
    running = server.Draining(service, on_listening=ready.set)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        ready.wait()
        url = server.url_of(listening)
        # The models are loaded by the first question, which would be most of the time in its receipt.
        first = {"question": _FIRST, "collection": _COLLECTION}
        httpx.post(f"{url}/v1/ask", json=first, timeout=_UNTIL_MS / 1000).raise_for_status()
        yield url
    finally:
        running.stop()
        thread.join()


def _take(browser: Browser, url: str, picture: Picture, folder: Path) -> bool:
    """Writes the picture. Whether it is small enough."""
    from PIL import Image

    width, height = picture.size
    context = browser.new_context(color_scheme="dark" if picture.scheme == "dark" else "light", reduced_motion="reduce",
                                  viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(_UNTIL_MS)
    page.goto(f"{url}/#{picture.view}")
    page.locator("#selector option").first.wait_for(state="attached")
    picture.steps(page)
    taken = Image.open(io.BytesIO(page.screenshot()))
    context.close()
    path = folder / f"{picture.name}.png"
    taken.convert("RGB").quantize(_COLOURS).save(path, optimize=True)
    size = path.stat().st_size
    over = "" if size <= MOST_BYTES else f", over the limit of {MOST_BYTES / 1000:.0f} kB"
    print(f"{path}  {size / 1000:.0f} kB{over}", file=sys.stderr)
    return not over


def _nothing(page: Page) -> None:
    page.locator("#frontier-body svg").first.wait_for()


def _ask(page: Page) -> None:
    page.get_by_label("Question").fill(_QUESTION)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".result .badge").first.wait_for()
    page.get_by_role("button", name="Cancel", exact=True).wait_for(state="hidden")
    page.evaluate("scrollTo(0, 0)")


def _compare(page: Page) -> None:
    page.get_by_label("Compare with naive").check()
    _ask(page)


def _trace(page: Page) -> None:
    _ask(page)
    page.locator(".trace").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('.trace').scrollIntoView()")


def _source(page: Page) -> None:
    _ask(page)
    page.locator(".citations button").first.click()
    page.locator("#source mark").first.wait_for()


def _documents(page: Page) -> None:
    page.locator("#document-list tbody tr").first.wait_for()
    page.locator("#files").set_input_files([_SAMPLE / "files" / "oxford.md", _SAMPLE / "files" / "tin.html"])
    page.get_by_role("button", name="Dismiss").wait_for()


if __name__ == "__main__":
    sys.exit(main())
