from __future__ import annotations

from pathlib import Path

from automl_pt.data.memory import available_memory


def test_memory_is_that_of_the_machine_within_the_containers_bound(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:       2000 kB\n")
    assert available_memory(meminfo, tmp_path) == 2000 * 1024
    (tmp_path / "memory.current").write_text("500\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(meminfo, tmp_path) == 2000 * 1024
    (tmp_path / "memory.max").write_text("1500\n")
    assert available_memory(meminfo, tmp_path) == 1000
    (tmp_path / "memory.max").write_text("400\n")
    assert available_memory(meminfo, tmp_path) == 0


def test_it_is_something_here() -> None:
    assert available_memory() > 1 << 20
    assert available_memory(Path("/nowhere"), Path("/nowhere")) > 1 << 20
