"""Pages in a real browser: those of the committed results, and made-up ones. Nothing may be asked of a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Request, ViewportSize, sync_playwright

from robustbench_cmic.report import judge, read_results
from robustbench_cmic.report.page import index_page, suite_page
from tests.conftest import ROOT
from tests.report.hostile import BAD, hostile

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COMMITTED = ("digits", "cifar100-lite")
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
SMALL: ViewportSize = {"width": 360, "height": 640}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium as the machine has it."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("there is no Chromium here, and CI is set: install it, see .ci/run")
        pytest.skip("there is no Chromium here")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found)
        yield started
        started.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `results`, its pages as files: index, one a committed suite, and `hostile`."""
    folder = tmp_path_factory.mktemp("site")
    boards = [(name, judge(read_results(ROOT / "results" / name))) for name in COMMITTED]
    for name, board in boards:
        (folder / name).mkdir()
        (folder / name / "index.html").write_text(suite_page(board, ROOT / "results" / name))
    (folder / "hostile").mkdir()
    board = hostile(tmp_path_factory.mktemp("made"))
    (folder / "hostile" / "index.html").write_text(suite_page(board, folder))
    (folder / "index.html").write_text(index_page([*boards, (BAD, board)]))
    return folder


@dataclass
class Visit:
    """A page that was opened, and what it did that it should not."""

    page: Page
    site: Path
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._request)
        self.page.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.requests.append(request.url)

    def _dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def open(self, name: str = "digits/index.html") -> Page:
        """The page of a file, when its charts are drawn."""
        self.page.goto((self.site / name).as_uri())
        self.page.wait_for_function("[...document.querySelectorAll('.chart')].every(c => c.querySelector('.xtick'))")
        return self.page


@pytest.fixture
def visit(browser: Browser, site: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A fresh page, light and of desktop size unless the test says otherwise; afterwards it must have been quiet."""
    options = {"viewport": DESKTOP, "color_scheme": "light"} | getattr(request, "param", {})
    page = browser.new_page(**options)
    page.set_default_timeout(15_000)
    opened = Visit(page, site)
    opened.watch()
    yield opened
    page.close()
    assert (opened.errors, opened.requests, opened.dialogs) == ([], [], [])
