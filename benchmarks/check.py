"""`automl-pt check`, the first and the second time, interleaved.

The command as a whole, which starts Python and imports libraries each time, and the check itself: from the folder's
path to the report, everything imported before. Wall and CPU seconds; on a machine with other work CPU time tells more.

    python benchmarks/check.py FOLDER
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

REPEATS = 5
SIDES = ("command, first", "command, second", "check itself, first", "check itself, second")
ITSELF = """
import json, sys, time
from pathlib import Path
import imagehash
from automl_pt.check import check
from automl_pt.layouts.layouts import open_path

wall, cpu = time.perf_counter(), time.process_time()
report = check(open_path(Path(sys.argv[1])))
print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "read": report.read}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = str(parser.parse_args().folder)
    with record.bytecode() as environment, tempfile.TemporaryDirectory() as cache:
        for measure in (command, itself):  # what is imported is compiled once, and that does not count
            measure(folder, cache, environment)
        compare(folder, environment)


def compare(folder: str, environment: dict[str, str]) -> None:
    times: dict[str, dict[str, list[float]]] = {side: {"wall": [], "cpu": []} for side in SIDES}
    read: dict[str, int] = {}
    for _ in range(REPEATS):
        for kind, measure in (("command", command), ("check itself", itself)):
            with tempfile.TemporaryDirectory() as cache:
                for allocation_lock in ("first", "second"):
                    side = f"{kind}, {allocation_lock}"
                    told = measure(folder, cache, environment)
                    read[side] = int(told["read"])
                    for unit in ("wall", "cpu"):
                        times[side][unit].append(told[unit])
    figures = {side: {unit: record.summary(values) for unit, values in times[side].items()} for side in SIDES}
    for side in SIDES:
        wall, cpu = figures[side]["wall"]["median"], figures[side]["cpu"]["median"]
        print(f"{side:22} wall {wall:6.2f} s   cpu {cpu:6.2f} s   files read {read[side]:6d}")
    ratios = {kind: ratio(figures, kind) for kind in ("command", "check itself")}
    for kind, values in ratios.items():
        print(f"{kind}: second / first: wall {values['wall']:.1%}, cpu {values['cpu']:.1%}")
    print(record.write("check", read=read, seconds=figures, ratios=ratios))


def ratio(figures: dict[str, Any], kind: str) -> dict[str, float]:
    first, second = figures[f"{kind}, first"], figures[f"{kind}, second"]
    return {unit: second[unit]["median"] / first[unit]["median"] for unit in ("wall", "cpu")}


def command(folder: str, cache: str, environment: dict[str, str]) -> dict[str, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    output = run(["-m", "automl_pt", "check", folder, "--json"], {**environment, "AUTOML_PT_CACHE": cache})
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "cpu": cpu, "read": json.loads(output)["read"]}


def itself(folder: str, cache: str, environment: dict[str, str]) -> dict[str, float]:
    told: dict[str, float] = json.loads(run(["-c", ITSELF, folder], {**environment, "AUTOML_PT_CACHE": cache}))
    return told


def run(arguments: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


if __name__ == "__main__":
    main()
