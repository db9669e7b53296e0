"""Write automl_pt/interactive/signatures.py from the settings: `train` and `search` with every one as a keyword.

python docs/make_signatures.py          writes the file
python docs/make_signatures.py --check  exits 1 if the file is not what the settings say
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from automl_pt.config import SearchConfig, Settings, TrainConfig
from automl_pt.interactive import calls

FILE = Path(calls.__file__).with_name("signatures.py")
HEAD = '''"""`train` and `search` with every setting as a keyword, for completion, help and type checkers.

`python docs/make_signatures.py` generates this file from the settings. A test fails when it is out of date. The bodies
are empty, because the decorator calls the functions of `calls.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from automl_pt.config import SearchConfig, TrainConfig
from automl_pt.interactive import calls

if TYPE_CHECKING:
    from automl_pt.plugins.manager import PluginFiles, Plugins
    from automl_pt.study.events import Event
    from automl_pt.study.records import StudyResult
    from automl_pt.training.result import EpochResult
'''
#: settings that take more kinds of values than their own type says, because a validator reads them
WIDER = {
    **{name: " | Path" for name in ("dataset", "root", "weights", "cache_dir")},
    "class_weights": " | Mapping[str, float]",
    "search": " | str | Mapping[str, Any]",
    "rivals": " | str",
    "max_params": " | str",
}
#: settings that the call has as parameters of its own
OWN = ("dataset", "plugins")


def text() -> str:
    """Return the file's text."""
    return "\n".join([HEAD, declaration(calls.train, TrainConfig), declaration(calls.search, SearchConfig)])


def declaration(function: Callable[..., Any], kind: type[Settings]) -> str:
    """Return the declaration of one call: its own parameters, then the settings."""
    own = list(inspect.signature(function).parameters.values())[:-1]
    first, *others = (_parameter(one.name, str(one.annotation), one.default) for one in own)
    fields = ((name, field) for name, field in kind.model_fields.items() if name not in OWN)
    settings = (_parameter(name, written_type(name, field), field.default) for name, field in fields)
    body = "\n    ".join((inspect.getdoc(function) or "").split("\n")).replace("    \n", "\n")
    lines = [
        "",
        f"@calls.declares(calls.{function.__name__}, {kind.__name__})",
        f"def {function.__name__}(  # type: ignore[empty-body]  # only declared here",
        *(f"    {line}," for line in (first, "*", *others, *settings)),
        f") -> {inspect.signature(function).return_annotation}:",
        f'    """{body}\n    """',
        "",
    ]
    return "\n".join(lines)


def written_type(name: str, field: FieldInfo) -> str:
    """Return the annotation of a setting, with all that it accepts."""
    return _written(field.annotation).removesuffix(" | None") + WIDER.get(name, "") + _none(field.annotation)


def _none(annotation: Any) -> str:
    return " | None" if _written(annotation).endswith(" | None") else ""


def _written(annotation: Any) -> str:
    """Write a type as source, without the ranges of its values; an array may be any sequence."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _written(inner[0])
    if origin in (Union, UnionType):
        parts = [_written(one) for one in inner]
        return " | ".join(sorted(dict.fromkeys(parts), key=lambda part: part == "None"))
    if origin is Literal:
        values = ", ".join(f'"{one}"' for one in inner)
        return f"Literal[{values}]"
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return f"Sequence[{_written(inner[0])}]"
        return f"tuple[{', '.join(map(_written, inner))}]"
    if origin is dict:
        return f"Mapping[{', '.join(map(_written, inner))}]"
    return "None" if annotation is NoneType else "Any" if annotation is Any else str(annotation.__name__)


def _parameter(name: str, annotation: str, default: Any) -> str:
    if default is inspect.Parameter.empty:
        return f"{name}: {annotation}"
    shown = f'"{default}"' if isinstance(default, str) else repr(default).replace("'", '"')
    return f"{name}: {annotation} = {shown}"


def main() -> int:
    """Write the file, or with `--check` compare it; return the exit code."""
    if "--check" not in sys.argv:
        FILE.write_text(text())
        return 0
    is_stale = FILE.read_text() != text()
    if is_stale:
        print(f"out of date: {FILE.name}; run python docs/make_signatures.py", file=sys.stderr)
    return int(is_stale)


if __name__ == "__main__":
    sys.exit(main())
