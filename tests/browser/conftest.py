"""Pages in a real browser: those of the committed results, and made-up ones. Nothing may be asked of a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page, Request, ViewportSize, sync_playwright

from robustbench_cmic.report import Summary, read_results, summarize
from robustbench_cmic.report.formats.html import index_page, suite_page
from tests.browser.twelve import twelve
from tests.conftest import ROOT
from tests.report.hostile import BAD, hostile
from tests.report.test_simplex import board as simplex_board

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
COMMITTED = (
    "digits", "mnist", "lambda-beta", "cifar100", "tabular", "objectives-settings", "centroid-ablation",
    "ncmi-law-digits", "objectives",
)  # fmt: skip
"""Of each kind of page one: pairs, a grid, an unfinished suite, folds, settings, class batches, the law, rivals."""
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
SMALL: ViewportSize = {"width": 360, "height": 640}
LARGE_SCREEN: dict[str, Any] = {"viewport": DESKTOP}
HELD: dict[str, Any] = {"viewport": PHONE, "has_touch": True, "is_mobile": True}
SCREENS = {
    f"{name}-{theme}": size | {"color_scheme": theme}
    for name, size in (("desktop", LARGE_SCREEN), ("phone", HELD))
    for theme in ("light", "dark")
}
on_every_screen = pytest.mark.parametrize("visit", SCREENS.values(), ids=SCREENS, indirect=True)
"""A test with a mouse on a desk and with a finger on a phone, in both themes: what depends on how things look."""
ACROSS = ("desktop-light", "phone-dark")
at_both_sizes = pytest.mark.parametrize("visit", [SCREENS[name] for name in ACROSS], ids=ACROSS, indirect=True)
"""With a mouse on a desk and with a finger on a phone."""


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


@cache
def board(name: str) -> Summary:
    """What committed records say, which is what their page has to show."""
    return summarize(read_results(ROOT / "results" / name))


@pytest.fixture(scope="session")
def digits() -> Summary:
    """The suite whose page is used like a reader would."""
    return board("digits")


class Site:
    """A folder as `results`, with pages as files: index, one a committed suite, `hostile`, `twelve` and `simplex`.

    Each is written when it is asked for: it takes seconds, and tests run in several processes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, name: str) -> Path:
        """The file of a page, `index.html` or `SUITE/index.html`."""
        path = self._folder / name
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            if name == "index.html":
                path.write_text(
                    index_page([*((each, board(each)) for each in COMMITTED), (BAD, self._made("hostile"))])
                )
            else:
                suite = path.parent.name
                path.write_text(suite_page(board(suite) if suite in COMMITTED else self._made(suite)))
        return path

    def _made(self, name: str) -> Summary:
        maker = {"hostile": hostile, "twelve": twelve, "simplex": simplex_board}[name]
        folder = self._folder / "made" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return maker(folder)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The pages that tests open."""
    return Site(tmp_path_factory.mktemp("site"))


@dataclass
class Visit:
    """A page that was opened, and what it did that it should not."""

    page: Page
    site: Site
    touch: bool = False
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
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.requests.append(request.url)

    def _dialog(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def open(self, name: str = "digits/index.html") -> Page:
        """The page of a file, when its charts are drawn."""
        self.page.goto(self.site.file(name).as_uri())
        folded_or_drawn = "c => c.closest('details:not([open])') || c.querySelector('.xtick')"
        self.page.wait_for_function(f"[...document.querySelectorAll('.chart')].every({folded_or_drawn})")
        return self.page

    def press(self, target: Locator) -> None:
        """With a finger where the screen is touched, else with a mouse."""
        if self.touch:
            target.tap()
        else:
            target.click()

    def point_at(self, chart: str, trace: int, point: int) -> Locator:
        """What is shown at a point of a trace, counted among those that are drawn."""
        mark = self.page.locator(f"#{chart} .scatterlayer .trace").nth(trace).locator(".points path").nth(point)
        mark.evaluate("mark => mark.scrollIntoView({block: 'center', behavior: 'instant'})")
        box = mark.bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        shown = self.page.locator(f"#{chart} .hovertext").first
        if not self.touch:
            self.page.mouse.move(x, y, steps=3)
            return shown
        for _ in range(6):  # right after scrolling a tap may only stop the page; two within 300 ms are a double tap
            self.page.wait_for_timeout(500)
            self.page.touchscreen.tap(x, y)
            self.page.wait_for_timeout(500)
            if shown.count():
                break
        return shown


@pytest.fixture
def visit(browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A fresh page, light and of desktop size unless the test says otherwise; afterwards it must have been quiet."""
    options = LARGE_SCREEN | {"color_scheme": "light"} | getattr(request, "param", {})
    page = browser.new_page(**options)
    page.set_default_timeout(15_000)
    opened = Visit(page, site, options.get("has_touch", False))
    opened.watch()
    yield opened
    page.close()
    assert (opened.errors, opened.requests, opened.dialogs) == ([], [], [])
