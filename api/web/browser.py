"""A Chromium to look at the page with, for its tests and screenshots. Needs the package `playwright`; the server does not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
HOW_TO_GET_ONE = "install Chromium (on Debian: apt install chromium), or run: playwright install --only-shell chromium"


@contextmanager
def chromium() -> Iterator[Browser | None]:
    """A headless one: of this machine, else the one that playwright fetched, else None."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = executable(playwright)
        if path is None:
            yield None
            return
        # Chromium refuses to sandbox itself for root, as whom containers often run.
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [], timeout=120_000)
        try:
            yield browser
        finally:
            browser.close()


def executable(playwright: Playwright) -> str | None:
    """CHROMIUM names one by its path."""
    named = os.environ.get("CHROMIUM")
    found = named or next((path for name in _NAMES if (path := shutil.which(name))), None)
    fetched = playwright.chromium.executable_path
    return found or (fetched if Path(fetched).is_file() else None)


def main() -> int:
    """Exit code 0 where there is a browser, 1 where there is none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = executable(playwright)
    print(path or f"There is no Chromium: {HOW_TO_GET_ONE}.", file=sys.stdout if path else sys.stderr)
    return 0 if path else 1


if __name__ == "__main__":
    sys.exit(main())
