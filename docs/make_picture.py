"""Draw the README's pictures: run its first search and keep what the terminal shows at its end, and its report.

python docs/make_picture.py FOLDER            docs/pictures/search.svg; the study goes to FOLDER/digits
python docs/make_picture.py --report FOLDER   docs/pictures/report.png, of the study in FOLDER; needs a Chromium
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from automl_pt.api.search import steps
from automl_pt.cli.live_table import LiveView
from automl_pt.cli.search_lines import Opening
from automl_pt.config import SearchConfig, make
from automl_pt.config.files import read_settings
from automl_pt.reporting.sections.write import read_content, write_page

HERE = Path(__file__).parent
PICTURES = HERE / "pictures"
STUDY = HERE.parent / "studies" / "digits" / "study.toml"
#: the two columns of the picture of a report: what is shown of it, in pixels of the page's width
WIDTH = 930
COLUMNS = (("header", "#answer", "#advice", "#trials"), ("#curves", "#space", "#confusion", "#mistakes"))
LEFT_OUT = "#confusion h3, #confusion h3 ~ *, #mistakes .gallery figure:nth-child(n+11) { display: none }"
GAP = 18
#: the picture is no taller than this: the longer column is cut
HEIGHT = 1500


def draw(folder: Path) -> None:
    """Search, then save the final screen as a picture."""
    config = make(SearchConfig, read_settings(SearchConfig, STUDY), source=str(STUDY))
    view, opening, first = LiveView(), Opening(), list[str]()
    for event in steps(config, folder / "digits"):
        first += opening.lines(event)
        view.take(event)
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print("$ automl-pt search --config studies/digits/study.toml", highlight=False)
    for line in first:
        console.print(_at_home(line, folder), highlight=False)
    console.print(view.render(console.width))
    for line in view.summary:
        console.print(_at_home(line, folder), highlight=False)
    picture = console.export_svg(title="automl-pt")
    # rich names fonts on a server; a picture in a README fetches nothing
    (PICTURES / "search.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL))


def _at_home(line: str, folder: Path) -> str:
    """Show the study's folder as it is called where a search is run in a folder of its own."""
    return line.replace(str(folder.absolute()), "studies").replace("report studies/", "report ")


def draw_report(study: Path) -> None:
    """Write the study's report, open it in Chromium, and set parts of it side by side."""
    page = write_page(read_content(study)[1], study / "report.html")
    columns = _columns(page)
    height = min(HEIGHT, max(column.height for column in columns))
    picture = Image.new("RGB", (2 * WIDTH, height), columns[0].getpixel((0, 0)))
    for number, column in enumerate(columns):
        picture.paste(column, (number * WIDTH, 0))
    # 256 colours, spread so that the rare ones of the plots are among them, at a third of the bytes
    picture.quantize(256, method=Image.Quantize.MAXCOVERAGE).save(PICTURES / "report.png", optimize=True)


def _columns(page: Path) -> list[Image.Image]:
    """Return the parts of each column below each other, cut out of a picture of the whole page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        view.goto(page.absolute().as_uri())
        view.add_style_tag(content=LEFT_OUT)
        whole = Image.open(io.BytesIO(view.screenshot(full_page=True)))
        columns = [[_rows(whole, view.locator(part).first.bounding_box()) for part in column] for column in COLUMNS]
        browser.close()
    return [_below_each_other(parts) for parts in columns]


def _rows(whole: Image.Image, box: Any) -> Image.Image:
    return whole.crop((0, round(box["y"]), WIDTH, round(box["y"] + box["height"])))


def _below_each_other(parts: list[Image.Image]) -> Image.Image:
    column = Image.new("RGB", (WIDTH, sum(part.height + GAP for part in parts)), parts[0].getpixel((0, 0)))
    top = GAP
    for part in parts:
        column.paste(part, (0, top))
        top += part.height + GAP
    return column


if __name__ == "__main__":
    if sys.argv[1] == "--report":
        draw_report(Path(sys.argv[2]))
    else:
        draw(Path(sys.argv[1]))
