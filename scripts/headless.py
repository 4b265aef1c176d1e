"""A headless Chromium with a fake camera, for tests and measurements of the page."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserType, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


@contextmanager
def headless_chromium(program: str, film: Path) -> Generator[Browser]:
    """A browser whose camera shows `film` round and round; use from one thread."""
    with (
        sync_playwright() as playwright,
        another_chromium(playwright.chromium, program, film) as it,
    ):
        yield it


@contextmanager
def another_chromium(chromium: BrowserType, program: str, film: Path) -> Generator[Browser]:
    """The same where there is a browser, and so playwright, already: its `browser_type`."""
    browser = chromium.launch(
        executable_path=program,
        headless=True,
        args=[*FLAGS, f"--use-file-for-fake-video-capture={film}"],
    )
    try:
        yield browser
    finally:
        browser.close()
