"""Everything to be known of one GPU, in two calls of a few minutes: first that results are right, then how fast.

    python benchmarks/gpu_day.py correct            # about 3 minutes
    python benchmarks/gpu_day.py speed              # about 5 minutes
    python benchmarks/gpu_day.py all --device cpu   # a dry run with tiny sizes, as a test does it

Run it from the root of the repository; it needs no package besides the project's. Each stage is a process with a time
limit, the limits add up to 8 minutes, and a failing stage stops none after it. As soon as a stage ends, a line of JSON
is appended to --output (default: benchmarks/results/gpu_day.jsonl): the stage, how it ended, what it found (also before
a time limit), and the card, its driver, the versions, the commit, and whether MPS is present. The images are drawn. A
finding of a correctness stage says what would be right, and the stage fails where that is not found. A summary ends the
output.
`benchmarks/gpu_stages.py` has the stages.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import record

#: stage -> seconds it may take
CORRECT = {"machine": 20, "tests": 65, "equal": 45, "resume": 30, "memory": 20, "faults": 35}
SPEED = {"steps": 70, "batches": 35, "compiled": 60, "together": 55, "search": 45}
PARTS = {"correct": CORRECT, "speed": SPEED, "all": CORRECT | SPEED}


def run_stage(stage: str, device: str, limit: float) -> dict[str, Any]:
    """Run one stage in a process of its own; return how it ended, and all that it told until then."""
    command = [sys.executable, "-u", str(Path(__file__).with_name("gpu_stages.py")), stage]
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "GPU_DAY_DEVICE": "cpu" if device == "cpu" else "cuda:0"},
    )
    try:
        out, errors = process.communicate(timeout=limit)
        status = "done" if process.returncode == 0 else f"failed with exit code {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # what it started, too
        out, errors = process.communicate()
        status = f"ended after its limit of {limit:g} s"
    found: dict[str, Any] = {}
    for line in out.splitlines():
        if line.startswith('{"told": '):
            found |= json.loads(line)["told"]
    last = [] if status == "done" else errors.strip().splitlines()[-12:]
    return {"stage": stage, "status": status, "seconds": round(time.monotonic() - began, 1), "found": found} | (
        {"errors": last} if last else {}
    )


def card(device: str) -> dict[str, Any]:
    """Return what to know of the card without importing torch here: the stages keep it for themselves."""
    mps = shutil.which("nvidia-cuda-mps-control") is not None
    if device == "cpu" or shutil.which("nvidia-smi") is None:
        return {"card": record.cpu_model() if device == "cpu" else None, "driver": None, "mps": mps}
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    told = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    name, driver, memory = (told[0] if told else ", , ").split(", ")
    return {"card": name, "driver": driver, "memory": memory, "mps": mps}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*PARTS, *CORRECT, *SPEED], help="a part, or one stage")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=record.RESULTS / "gpu_day.jsonl")
    given = parser.parse_args()
    stages = PARTS.get(given.what) or {given.what: PARTS["all"][given.what]}
    given.output.parent.mkdir(parents=True, exist_ok=True)
    about, failed, ended = card(given.device) | {"device": given.device}, 0, list[str]()
    around = record.surroundings()
    about |= {key: around[key] for key in ("commit", "versions", "date")}
    with given.output.open("a") as stream:
        for stage, limit in stages.items():
            line = run_stage(stage, given.device, limit) | about
            failed += line["status"] != "done"
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
            print(json.dumps({key: line[key] for key in ("stage", "status", "seconds", "found")}), flush=True)
            for text in line.get("errors", []):
                print(f"  {text}", flush=True)
            ended.append(f"{stage:10}{line['seconds']:>7.1f} s of {limit:>3}  {line['status']}")
    print("\n".join(["", *ended, f"{failed} of {len(ended)} stages failed; all findings: {given.output}"]), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
