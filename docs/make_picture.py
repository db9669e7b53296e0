"""Draw docs/search.svg: run the README's first search and keep what the terminal shows at its end.

python docs/make_picture.py FOLDER     the study goes to FOLDER/digits
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console

from automl_pt.cli.search_display import LiveView
from automl_pt.config import SearchConfig, make, read_toml
from automl_pt.study.search import steps

HERE = Path(__file__).parent
STUDY = HERE.parent / "studies" / "digits" / "study.toml"


def draw(folder: Path) -> None:
    """Search, then save the final screen as a picture."""
    config = make(SearchConfig, read_toml(STUDY), source=str(STUDY))
    view = LiveView()
    for event in steps(config, folder / "digits"):
        view.take(event)
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print("$ automl-pt search --config studies/digits/study.toml", highlight=False)
    console.print(view.render())
    for line in view.summary:
        console.print(line.replace(str(folder.absolute()), "studies"), highlight=False)
    picture = console.export_svg(title="automl-pt")
    # rich names fonts on a server; a picture in a README fetches nothing
    (HERE / "search.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
