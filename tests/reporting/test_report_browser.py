"""The report in a real browser: nothing runs, nothing is fetched, nothing is wider than the screen."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny_runs import write_plugin

from automl_pt.reporting.html.page import render
from automl_pt.reporting.sections.write import read_content, read_several

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
#: nothing that a browser does on its own behalf
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module", autouse=True)
def named_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Name the plugin of the studies here: those that a study names itself are not loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOML_PT_PLUGINS", str(write_plugin(tmp_path_factory.mktemp("plugins")).parent))
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed; Debian's package is called chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


def with_100_classes(values: dict[str, Any]) -> dict[str, Any]:
    """Return a report's values with a hundred classes of long and hostile names, and 64 trials."""
    values = copy.deepcopy(values)
    names = [
        f"{row['name']} {'long' * (number % 9)} {number}" for number in range(20) for row in values["classes"]["rows"]
    ]
    row, trial = values["classes"]["rows"][0], values["trials"]["rows"][0]
    values["classes"]["rows"] = [{**row, "index": number, "name": name} for number, name in enumerate(names)]
    counts = [[9 if a == b else (a * b) % 97 == 1 for b in range(100)] for a in range(100)]
    shares = [[count / sum(line) for count in line] for line in counts]
    values["confusion"] |= {"classes": names, "counts": counts, "shares": shares}
    values["trials"]["rows"] = [{**trial, "number": number, "best": number == 0} for number in range(64)]
    return values


@pytest.fixture(scope="module")
def pages(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return pages as files: a study, its like with 100 classes, one whose images are gone, a run, three studies."""
    folder, study = tmp_path_factory.mktemp("pages"), searched / "studies" / "hostile"
    content = read_content(study)[1]
    gone = {**content.values, **{name: {"missing": "x" * 400} for name in ("classes", "confusion", "mistakes")}}
    run = read_content(next(path.parent for path in sorted(study.glob("trials/*/model.json"))))[1]
    drawn = {
        "study": render(content.values, content.pictures),
        "large": render(with_100_classes(content.values), content.pictures),
        "gone": render(gone, {}),
        "run": render(run.values, run.pictures),
        "studies": render(read_several([study, study, study])[1].values, {}),
    }
    for name, html in drawn.items():
        (folder / f"{name}.html").write_text(html)
    return {name: folder / f"{name}.html" for name in drawn}


@pytest.mark.parametrize("name", ["study", "large", "gone", "run", "studies"])
@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (800, "dark"), (1300, "light"), (1300, "dark")])
def test_the_page_fits_and_is_silent(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: Any
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    wide = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    assert page.evaluate(wide) == [width, width]
    assert [url for url in asked if not url.startswith("data:")] == [pages[name].as_uri()]
    assert said == []
    page.close()


@pytest.mark.parametrize("name", ["study", "run", "studies"])
def test_nothing_is_cut_on_a_phone(browser: Browser, pages: dict[str, Path], name: str) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(pages[name].as_uri())
    cut = "[...document.querySelectorAll('.wide')].filter(one => one.scrollWidth > one.clientWidth + 1).length"
    matrices = "[...document.querySelectorAll('.wide:has(.matrix)')].length"
    assert page.evaluate(cut) <= page.evaluate(matrices)  # a matrix cannot be folded: it scrolls in its box
    page.close()


def test_a_wide_screen_has_two_columns(browser: Browser, pages: dict[str, Path]) -> None:
    columns = []
    for width in (1000, 1100):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto(pages["study"].as_uri())
        tops = page.evaluate("['curves', 'space'].map(id => document.getElementById(id).getBoundingClientRect().top)")
        columns.append(tops[0] == tops[1])
        page.close()
    assert columns == [False, True]


def test_every_picture_is_drawn_and_plots_follow_the_scheme(browser: Browser, pages: dict[str, Path]) -> None:
    inks = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]  # one of the two
        page.goto(pages["large"].as_uri())
        assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
        assert page.evaluate("document.images.length") > 10
        inks.append(page.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill"))
        page.close()
    assert len(set(inks)) == 2


def test_print_shows_what_is_folded_away(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["large"].as_uri())
    last = page.locator("#classes details tbody tr").last
    assert not last.is_visible()
    page.emulate_media(media="print")
    assert last.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
