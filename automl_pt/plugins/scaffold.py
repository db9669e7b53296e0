"""Writes a new plugin distribution from the tested example under plugins/, with other names."""

from __future__ import annotations

import ast
import keyword
import re
import sys
from pathlib import Path

from automl_pt.core.errors import OutputError, UsageError
from automl_pt.core.files import atomic_write

#: for each kind, the functions of the example's module and tests that belong to it
PARTS = {
    "backbone": {"tiny", "register_backbones", "test_the_backbone_keeps_the_contract"},
    "dataset": {"stripes", "register_datasets", "test_the_dataset_keeps_the_contract"},
    "tracker": {"epoch_finished", "test_the_tracker_writes_every_epoch_down"},
}
ALL = frozenset(PARTS)
#: the default kinds of a new plugin
BOTH = frozenset({"backbone", "dataset"})
#: module names that a plugin must not use, because it imports them
_TAKEN = ("automl_pt", "numpy", "torch")
_INVITATION = "To start your own, copy this folder, or let `automl-pt plugins new NAME` do it.\n\n"


def new_plugin(name: str, folder: Path, kinds: frozenset[str] = BOTH) -> list[Path]:
    """Write an installable distribution called `name` into `folder`/`name`; return its files.

    Raises UsageError for a name that cannot be a distribution's, OutputError if the folder exists already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(
            "not a distribution's name: use lower-case letters, digits and single hyphens, starting with a letter",
            given=repr(name),
            remedy="choose a name such as acme-nets",
        )
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in _TAKEN:
        raise UsageError(
            "the plugin's module would hide another module of the same name",
            given=f"{name}: {module} is in Python's standard library, or a package that a plugin needs",
            remedy="choose a name such as acme-nets",
        )
    target = folder / name
    if target.exists():
        raise OutputError("the new plugin's folder exists already", given=f"{target}", remedy="choose another name")
    written = []
    for source in sorted(path for path in template().rglob("*") if path.suffix in (".py", ".toml", ".md")):
        path = target / renamed(str(source.relative_to(template())), name)
        atomic_write(path, renamed(chosen(source.read_text(encoding="utf-8"), source.suffix, kinds), name))
        written.append(path)
    return written


def template() -> Path:
    """Return the folder of the example, in an installed package or else in the repository."""
    packaged = Path(__file__).parents[1] / "templates" / "automl-pt-example"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "plugins" / "automl-pt-example"


def renamed(text: str, name: str) -> str:
    """Replace the example's names by the new plugin's."""
    text = text.replace("automl-pt-example", name).replace("automl_pt_example", name.replace("-", "_"))
    text = re.sub(r"\bexample/", f"{name}/", text)
    text = re.sub(r"(--tracker |check_tracker\(\")example\b", rf"\g<1>{name}", text)
    return re.sub(r"^example = ", f"{name} = ", text, flags=re.MULTILINE)


def chosen(text: str, suffix: str, kinds: frozenset[str]) -> str:
    """Remove the parts that belong to other kinds of plugins."""
    if suffix == ".py":
        text = without(text, set().union(*(names for kind, names in PARTS.items() if kind not in kinds)))
    text = text.replace(_title(ALL), _title(kinds)).replace(_run(ALL), _run(kinds))
    # remove the example's invitation to copy it
    return text.replace(_INVITATION, "").replace(": copy this folder to start your own", "")


def _title(kinds: frozenset[str]) -> str:
    """Return the kinds as a phrase to follow "A": "backbone, a dataset and a tracker"."""
    *before, last = (kind for kind in PARTS if kind in kinds)
    return " and a ".join([", a ".join(before), last]) if before else last


def _run(kinds: frozenset[str]) -> str:
    """Return the arguments of `automl-pt train` that try the plugin."""
    backbone = " --backbone example/tiny" if "backbone" in kinds else ""
    tracker = " --tracker example" if "tracker" in kinds else ""
    return f"{'example/stripes' if 'dataset' in kinds else 'digits'}{backbone}{tracker}"


def without(source: str, functions: set[str]) -> str:
    """Remove top-level functions from a module, and the imports that are unused then."""
    tree, lines = ast.parse(source), source.splitlines()
    kept = [node for node in tree.body if getattr(node, "name", None) not in functions]
    used = {node.id for part in kept for node in ast.walk(part) if isinstance(node, ast.Name)}
    for node in reversed(tree.body):
        if node not in kept:
            assert isinstance(node, ast.FunctionDef)
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            del lines[first - 1 : node.end_lineno]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            lines[node.lineno - 1 : node.end_lineno] = _needed(node, used)
    text = re.sub(r"\n{3,}(?=from |import )", "\n\n", "\n".join(lines))
    return re.sub(r"\n{4,}", "\n\n\n", text).strip() + "\n"


def _needed(node: ast.Import | ast.ImportFrom, used: set[str]) -> list[str]:
    node.names = [alias for alias in node.names if (alias.asname or alias.name) in used]
    return [ast.unparse(node)] if node.names else []
