"""Pages of a site in headless Chromium, read from the file system, with everything that went wrong on them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WIDTHS = {"phone": 390, "desktop": 1280}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSIDE = ("file:", "data:", "blob:", "about:")
BEYOND = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PICTURES = """async () => {
    const missing = [];
    for (const picture of document.images) {
        picture.loading = "eager";
        try { await picture.decode(); } catch { missing.push(picture.src); }
        if (!picture.naturalWidth) missing.push(picture.src);
    }
    return missing;
}"""


@contextmanager
def launched() -> Iterator:
    """The browser; the test is skipped if there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[dev]'")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"needs Chromium on the PATH ({', '.join(BROWSERS)}); on Debian: apt install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])  # root has no sandbox
        yield browser
        browser.close()


class Watched:
    """A page of the browser with everything that went wrong on it."""

    def __init__(self, browser, width: int):
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.wrong: list[str] = []
        self.page.on("console", lambda told: told.type in ("error", "warning") and self.wrong.append(told.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", lambda asked: asked.url.startswith(INSIDE) or self.wrong.append(asked.url))

    def _failed(self, asked) -> None:
        """Requests that a click ended, such as that of a picture on the page before, are no fault."""
        if asked.failure != "net::ERR_ABORTED":
            self.wrong.append(f"not loaded: {asked.url}: {asked.failure}")

    def open(self, path: Path):
        self.page.goto(path.as_uri(), wait_until="load")
        return self.page


def faults(watching: Watched, path: Path) -> tuple[list[str], list[str], int] | None:
    """What is wrong with a page: messages, missing pictures, pixels beyond the window; ``None`` if nothing is."""
    page = watching.open(path)
    missing = page.evaluate(PICTURES)
    wide = page.evaluate(BEYOND)
    if not (watching.wrong or missing or wide > 0):
        return None
    told = list(watching.wrong)
    watching.wrong.clear()
    return told, missing, wide
