"""Write docs/reference/hooks.md from the code: every hook with its signature, a tested example, and who implements it.

python docs/make_hooks.py          writes the file
python docs/make_hooks.py --check  exits 1 when the file is not what the code says
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from automl_pt.plugins import hookspecs
from automl_pt.plugins.sources import BUILTIN, declared_hooks

DOCS = Path(__file__).parent
TARGET = DOCS / "reference" / "hooks.md"
EXAMPLES = DOCS / "reference" / "hooks"
#: what an example is used with
USES = {
    "register_backbones": "automl-pt search digits --plugin register_backbones.py --backbone acme/flat",
    "register_executors": "automl-pt search digits --plugin register_executors.py --engine acme/thread",
    "register_augmentations": "automl-pt train digits --plugin register_augmentations.py --augmentation acme-negative",
    "register_optimizers": "automl-pt train digits --plugin register_optimizers.py --optimizer acme-rmsprop",
    "register_datasets": "automl-pt train acme/sides --plugin register_datasets.py",
    "register_metrics": "automl-pt train digits --plugin register_metrics.py",
    "register_readers": "automl-pt predict MODEL scan.acme --plugin register_readers.py",
    "register_samplers": "automl-pt search digits --plugin register_samplers.py --sampler acme/grid",
    "register_pruners": "automl-pt search digits --plugin register_pruners.py --pruner acme/twice",
}
HEAD = """# Hooks

`python docs/make_hooks.py` generates this page from the code. A test fails when it is out of date, and runs
every example.

A plugin is a module that implements any of these functions and marks them with `automl_pt.hookimpl`. There
are two kinds:

- A `register_` hook returns values. It is called once in a process.
- The other hooks belong to trackers. Each receives one value and returns nothing. They are called only for
  trackers that `--tracker NAME` names.

[What hooks return and receive](plugin-values.md) lists the fields of the values.
[Write a plugin](../how-to/write-a-plugin.md) explains how a plugin is found and checked.
"""


def hooks_page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *map(hook_text, (*hookspecs.REGISTERING, *hookspecs.TRACKING))])


def hook_text(name: str) -> str:
    """Show a hook: signature, sentence, example, implementations."""
    hook = getattr(hookspecs, name)
    example = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    use = USES.get(name, f"automl-pt train digits --plugin {name}.py --tracker {name}")
    return (
        f"## `{name}{inspect.signature(hook)}`\n\n{inspect.cleandoc(hook.__doc__ or '')}\n\n"
        f"```python\n{example}```\n\nUsed with `{use}`.\n\nImplemented by {', '.join(implementers(name))}.\n"
    )


def implementers(name: str) -> list[str]:
    """Name the built-in modules and the distributions under plugins/ whose source implements a hook."""
    root = DOCS.parent
    found = [f"`{module}`" for module in BUILTIN if name in declared_hooks(root / f"{module.replace('.', '/')}.py")]
    for path in sorted((root / "plugins").glob("*/*.py")):
        if name in declared_hooks(path):
            found.append(f"`plugins/{path.parent.name}`")
    return found or ["no plugin in this repository"]


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == hooks_page() else 1)
    TARGET.write_text(hooks_page())
