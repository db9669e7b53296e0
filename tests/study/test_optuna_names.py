"""What is used of Optuna is public: its version has no upper bound."""

from __future__ import annotations

import ast
from pathlib import Path

from optuna.storages import RDBStorage

from automl_pt.study.store.coordination import ATTRIBUTES

PACKAGE = Path(__file__).parents[2] / "automl_pt"


def test_no_private_name_of_optuna_is_used() -> None:
    trees = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py") if "optuna" in path.read_text()}
    assert len(trees) > 10
    ours = {node.attr for tree in trees.values() for node in ast.walk(tree) if _is_own(node)}
    ours |= {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
                names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
                assert [name for name in names if name.startswith("_")] == [], f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_own(node):
                assert node.attr in ours, f"{path}:{node.lineno}: {node.attr}"


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _is_own(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def test_optunas_table_of_attributes_has_the_columns_that_the_fence_reads(tmp_path: Path) -> None:
    storage = RDBStorage(f"sqlite:///{tmp_path}/study.db")
    with storage.engine.connect() as connection:
        assert connection.execute(ATTRIBUTES.select()).fetchall() == []
    storage.engine.dispose()
