"""A Ray cluster of several machines on the loopback of one: each has a raylet, an object store and a folder of its own.

A raylet waits 15 seconds for its agents' port files. On a busy machine these agents take longer, so that the files are
written beforehand.
"""

from __future__ import annotations

import inspect
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# all of it on 127.0.0.1
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
# Ray starts workers at nice 15, at which a busy machine gives them nothing
os.environ.setdefault("RAY_worker_niceness", "0")

from automl_pt.study.executor import ray_cluster  # noqa: F401  first: it sets what Ray reads when it is imported

# isort: split
import ray
import ray._private.services as services
from ray.cluster_utils import Cluster

from automl_pt.study.executor.keeper import descendants

STORE = 80 * 2**20


def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def settings(**more: Any) -> dict[str, Any]:
    ports = ("metrics_agent_port", "runtime_env_agent_port", "dashboard_agent_listen_port", "metrics_export_port")
    given = {name: port() for name in ports}
    return {"node_ip_address": "127.0.0.1", "object_store_memory": STORE, "include_log_monitor": False, **given, **more}


@contextmanager
def cluster(machines: int = 3, **resources: Any) -> Iterator[tuple[Cluster, list[Any]]]:
    """Start a head without CPUs, and machines with one CPU each."""
    _write_port_files()
    head = settings(num_cpus=0, include_dashboard=False, no_monitor=True)
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield found, [add(found, **resources) for _ in range(machines)]
    finally:
        ray.shutdown()
        found.shutdown()


def add(found: Cluster, **resources: Any) -> Any:
    return found.add_node(**settings(**{"num_cpus": 1, **resources}))


def kill(node: Any, *, workers: bool = True) -> None:
    """End a machine as a power cut does: its raylet, and its workers unless that alone is to die."""
    process = int(node.all_processes["raylet"][0].process.pid)
    for one in [process, *(descendants(process) if workers else ())]:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _write_port_files() -> None:
    start = services.start_raylet
    if getattr(start, "writes_port_files", False):
        return
    names = list(inspect.signature(start).parameters)

    def start_raylet(*values: Any, **named: Any) -> Any:
        given = {**dict(zip(names, values, strict=False)), **named}
        folder, node = Path(given["session_dir"]), given["node_id"]
        node = node if isinstance(node, str) else node.hex()
        for what in ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"):
            (folder / f"{what}_{node}").write_text("-1")
        (folder / f"runtime_env_agent_port_{node}").write_text(str(given["runtime_env_agent_port"]))
        return start(*values, **named)

    start_raylet.writes_port_files = True  # type: ignore[attr-defined]
    services.start_raylet = start_raylet
