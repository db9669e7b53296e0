"""The page of `automl-pt serve` in a real browser: it classifies, and hostile names stay text."""

from __future__ import annotations

import base64
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import draw_image, noise_files
from test_serving import HOSTILE, serving
from tiny import make_model

from automl_pt.model.load import Model, load_model
from automl_pt.model.predict import predict_files
from automl_pt.model.unsure import Measured, UnsureRule
from automl_pt.plugins.manager import Plugins
from automl_pt.serving.limits import Limits

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright for Python is not installed")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")

#: how the page shows those hostile names that would hide, reverse or break a line
SHOWN = {
    "\u202egnp.exe": "\\u{202e}gnp.exe",
    "a\nb\x1b[2J": "a\\u{a}b\\u{1b}[2J",
    "\udcff": "\\u{dcff}",
}

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Model:
    directory = make_model(tmp_path_factory.mktemp("hostile"), plugins, classes=HOSTILE, backbone="tiny")
    return load_model(directory, device="cpu", plugins=plugins)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield browser
        browser.close()


class Visit:
    """A page of the server, with what it asked for and complained of."""

    def __init__(self, browser: Any, port: int, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = f"http://127.0.0.1:{port}/"
        self.page.goto(self.address)
        self.page.locator("#about:not(:empty)").wait_for()

    def upload(self, paths: list[Path]) -> None:
        self.page.set_input_files("#files", [str(path) for path in paths])
        # nothing that evaluates text: the page's policy forbids that
        self.page.locator(".result .bars, .result .error").nth(len(paths) - 1).wait_for()

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        found: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return found

    def end(self) -> None:
        """Close the page; it must have complained of nothing, and asked nobody else."""
        self.page.close()
        assert self.complaints == []
        assert all(url.startswith((self.address, f"blob:{self.address}")) for url in self.requests)


@pytest.mark.parametrize(
    "look", [{"viewport": {"width": 1200, "height": 800}}, {"viewport": {"width": 320, "height": 640}}]
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_classifies_and_hostile_names_stay_text(
    tmp_path: Path, browser: Any, hostile: Model, look: dict[str, Any], scheme: str
) -> None:
    (path,) = noise_files(tmp_path / "x", 1)
    paths = [path.rename(path.with_name("<img src=x onerror=alert(1)>\u202egnp.png"))]
    with serving(hostile, Limits()) as port:
        visit = Visit(browser, port, color_scheme=scheme, **look)
        visit.upload(paths)
        shown = visit.page.locator(".bars span").all_inner_texts()
        (wanted,) = predict_files(hostile, paths)
        assert wanted.probabilities is not None
        order = (-wanted.probabilities).argsort(kind="stable")[:5]
        assert visit.page.locator(".bars b").all_inner_texts() == [
            f"{100 * wanted.probabilities[index]:.1f} %" for index in order
        ]
        assert shown == [SHOWN.get(hostile.classes[index], hostile.classes[index]) for index in order]
        assert visit.page.locator(".result h2").inner_text() == "<img src=x onerror=alert(1)>\\u{202e}gnp.png"
        widths = visit.page.locator(".bars i").evaluate_all("all => all.map(one => one.offsetWidth)")
        assert widths == sorted(widths, reverse=True)
        assert widths[0] > 20
        assert visit.page.locator("main script, main svg, img[src=x]").count() == 0
        assert visit.page.title() == "automl-pt"
        assert visit.overflow() == 0
        visit.end()


def test_a_file_that_is_no_image_says_so_and_others_go_on(tmp_path: Path, browser: Any, hostile: Model) -> None:
    (good,) = noise_files(tmp_path / "x", 1)
    bad, large = tmp_path / "bad.png", tmp_path / "large.png"
    bad.write_text("<html>")
    large.write_bytes(bytes(300_000))
    with serving(hostile, Limits(bytes=200_000)) as port:
        visit = Visit(browser, port)
        visit.upload([bad, large, good])
        errors = visit.page.locator(".result .error").all_inner_texts()
        assert errors == [
            "Not classified: larger than 200000 bytes",
            "Not classified: not a JPEG, PNG, WebP, BMP, GIF or TIFF file; it is an HTML page from a failed download; "
            "download the image again, as `curl --fail -LO ADDRESS` does",
        ]
        assert visit.page.locator(".result .bars").count() == 1
        # the browser itself reports the refused request
        visit.complaints = [text for text in visit.complaints if "422" not in text]
        visit.end()


def test_the_server_sends_a_picture_of_what_a_browser_does_not_show(
    tmp_path: Path, browser: Any, hostile: Model
) -> None:
    good, broken = tmp_path / "cells.tif", tmp_path / "broken.tif"
    draw_image(1, 1, 40).resize((80, 40)).save(good)
    broken.write_bytes(good.read_bytes()[:200])
    with serving(hostile, Limits()) as port:
        visit = Visit(browser, port)
        visit.upload([broken, good])
        picture = visit.page.locator(".result:not(.bare) img")
        picture.wait_for()
        size = picture.evaluate("one => one.decode().then(() => [one.naturalWidth, one.naturalHeight])")
        assert size == [240, 120]  # a tiny picture is enlarged in whole pixels
        assert visit.page.locator(".result.bare img").count() == 0
        assert visit.page.locator(".result.bare .error").count() == 1
        visit.complaints = [text for text in visit.complaints if "422" not in text]
        visit.end()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"threshold": 0.0}, "Unsure: "),
        ({"threshold": 1.0}, "Unsure: no class is likely enough"),
    ],
)
def test_an_unsure_answer_says_so_and_why(
    tmp_path: Path, browser: Any, hostile: Model, rule: dict[str, float], said: str
) -> None:
    measured = Measured(40, 30, 29, 38, 1, "test")
    kept = UnsureRule("w", 0.05, rule["threshold"], 1.0, 40, "data", None, measured)
    with serving(replace(hostile, rule=kept), Limits()) as port:
        visit = Visit(browser, port, viewport={"width": 400, "height": 700})
        about = visit.page.locator("#about").inner_text()
        assert "sure of 75.0 % of its test images, and right on 96.7 % of those" in about
        visit.upload(noise_files(tmp_path / "x", 1))
        shown = visit.page.locator(".result .unsure").inner_text()
        assert shown.startswith(said)
        if rule["threshold"] == 0:
            assert f"or one of {len(hostile.classes) - 5} more" in shown
            assert visit.page.locator(".unsure bdi").count() == 5
        assert visit.page.locator("main script, main svg, img[src=x]").count() == 0
        assert visit.overflow() == 0
        visit.end()


def test_an_image_can_be_dropped(tmp_path: Path, browser: Any, hostile: Model) -> None:
    (path,) = noise_files(tmp_path / "x", 1)
    with serving(hostile, Limits()) as port:
        visit = Visit(browser, port)
        content = base64.b64encode(path.read_bytes()).decode()
        visit.page.evaluate(
            """content => {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                const data = new DataTransfer();
                data.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
                document.getElementById("drop").dispatchEvent(
                    new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
            }""",
            content,
        )
        visit.page.wait_for_selector(".result .bars")
        assert visit.page.locator(".result h2").inner_text() == "dropped.png"
        visit.end()


class ForeignPage(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>another site</title>")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def foreign_site() -> Iterator[int]:
    """Serve a page of nobody's on a port of its own."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ForeignPage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_page_of_another_site_cannot_ask(browser: Any, hostile: Model) -> None:
    with serving(hostile, Limits()) as port, serving(hostile, Limits()) as other:
        visit = Visit(browser, other)
        asked = "url => fetch(url, {method: 'POST', mode: 'no-cors', body: 'x'}).then(() => 'sent', () => 'not sent')"
        # the page's own policy lets it ask nobody else
        assert visit.page.evaluate(asked, f"http://127.0.0.1:{port}/predict") == "not sent"
        visit.page.close()
    with serving(hostile, Limits()) as port, foreign_site() as other:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{other}/")
        with page.expect_event("requestfailed") as blocked:
            page.evaluate(asked, f"http://127.0.0.1:{port}/predict")
        assert blocked.value.failure.startswith("net::ERR_BLOCKED_BY_RESPONSE")
        refused = page.request.get(f"http://127.0.0.1:{port}/model", headers={"origin": "null"})
        assert refused.status == 403
        page.close()
