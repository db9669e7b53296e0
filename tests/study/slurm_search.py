"""Stands for `automl-pt search` in a Slurm job of stubs: a toy search in this process, with the command's signals."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from toy_trial import TOY

from automl_pt.api import search
from automl_pt.cli.signals import STEPPING, stopping
from automl_pt.config import SearchConfig


def main() -> int:
    dataset, *others = sys.argv[2:]
    given = dict(zip(others[::2], others[1::2], strict=True))
    assert sys.argv[1] == "search"
    assert given.pop("--engine") == "ray"
    with open("addresses", "a") as stream:
        stream.write(f"{given.pop('--ray-address')} {len(os.environ['RAY_AUTH_TOKEN'])}\n")
    config = SearchConfig(dataset=dataset, epochs=9, trials=int(given.pop("--trials")), workers=0)
    assert not given
    with stopping(STEPPING) as stop:
        *_, finished = search.steps(config, Path("study"), objective=TOY, stop=lambda: stop.signal)
        Path("trials.json").write_text(json.dumps([one.to_dict() for one in finished.result.trials]))
        return stop.exit_code


if __name__ == "__main__":
    sys.exit(main())
