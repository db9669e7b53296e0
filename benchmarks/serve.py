"""`automl-pt serve` under load: clients of another process, each asking again as soon as it has its answer.

python benchmarks/serve.py FOLDER [--seconds 30] [--clients 8]

The model is a ResNet-18 for 64 px with random weights; the images are FOLDER's JPEGs, one a request, in turn. Memory is
the server's resident set once a second, from the end of the first tenth on.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from predict import save

#: images that the clients send in turn
IMAGES = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--dry", action="store_true", help="Write no results file.")
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        print(json.dumps(ask(arguments.folder, *map(float, arguments.ask))))
        return
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "model")
        found = measure(Path(folder) / "model", arguments)
    print(json.dumps(found, indent=1))
    assert not found["errors"], found["errors"]
    if not arguments.dry:
        print(record.write("serve", **found))


def measure(model: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    server = subprocess.Popen(
        [sys.executable, "-m", "automl_pt", "serve", str(model), "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    port = int(re.findall(r":(\d+)/", server.stdout.readline())[0])
    words = [str(arguments.folder), "--ask", str(port), str(arguments.clients), str(arguments.seconds)]
    clients = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
    memory, begun = [], cpu_seconds(server.pid)
    while clients.poll() is None:
        memory.append(resident(server.pid))
        time.sleep(min(1.0, arguments.seconds / 10))
    found: dict[str, Any] = json.loads(clients.communicate()[0])
    health, used = json.loads(get(port, "/health")), cpu_seconds(server.pid) - begun
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait(20) == 0
    settled = memory[len(memory) // 10 + 1 :]
    return {
        **found,
        "cpu_milliseconds_per_answer": 1000 * used / max(1, health["images"]),
        "images_per_pass": health["images"] / max(1, health["passes"]),
        "memory_mib": {"first": settled[0], "last": settled[-1], "highest": max(settled)},
    }


def resident(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used: the 14th and 15th field of its stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read()


def ask(folder: Path, port: float, clients: float, seconds: float) -> dict[str, Any]:
    """Be the clients: return answers, errors and the times they took."""
    contents = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:IMAGES]]
    times: list[float] = []
    errors: list[str] = []
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection, sent = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60), number
        while time.perf_counter() < end:
            start = time.perf_counter()
            try:
                connection.request("POST", "/predict", contents[sent % len(contents)], {"content-type": "image/jpeg"})
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                errors.append(repr(error))
                connection.close()
                continue
            times.append(time.perf_counter() - start)
            if response.status != 200:
                errors.append(f"{response.status} {body[:200]!r}")
            sent += int(clients)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p90, p99 = (float(value) * 1000 for value in np.percentile(times, [50, 90, 99]))
    return {
        "clients": int(clients),
        "seconds": seconds,
        "answers": len(times),
        "answers_per_second": len(times) / seconds,
        "errors": errors,
        "milliseconds": {"p50": p50, "p90": p90, "p99": p99, "highest": max(times) * 1000},
    }


if __name__ == "__main__":
    main()
