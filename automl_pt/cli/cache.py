"""`automl-pt cache`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from automl_pt.cli.columns import print_columns
from automl_pt.cli.lookup import json_option

if TYPE_CHECKING:
    from automl_pt.data.cache.disk import CacheFile

F = TypeVar("F", bound=Callable[..., Any])


def folder_option(function: F) -> F:
    """Add `--cache-dir FOLDER`."""
    text = "The cache folder; default: AUTOML_PT_CACHE, else automl_pt in the user's cache folder."
    return click.option("--cache-dir", metavar="FOLDER", help=text)(function)


@click.group("cache")
def command() -> None:
    """List or prune the decoded images and the features on disk.

    What is removed is decoded or computed again when it is needed. AUTOML_PT_CACHE_LIMIT sets how many gigabytes the
    caches may take together; without it, a fifth of the disk.
    """


@command.command("list")
@folder_option
@json_option
def list_command(cache_dir: str | None, as_json: bool) -> None:
    """List the caches, the one used last first."""
    from automl_pt.core.files import to_json
    from automl_pt.data.cache.disk import gigabytes, list_caches, pixels_folder

    folder = pixels_folder(cache_dir)
    caches = list_caches(folder)
    if as_json:
        click.echo(to_json([_values(cache) for cache in caches], indent=2))
        return
    _print_table(caches)
    click.echo(
        f"{len(caches)} caches, {gigabytes(sum(cache.size for cache in caches))} in {click.format_filename(folder)}"
    )


@command.command("prune")
@folder_option
@click.option("--max-size", type=click.FloatRange(min=0), metavar="GB", help="Keep at most this much, used last first.")
@click.option("--unused", type=click.FloatRange(min=0), metavar="DAYS", help="Remove what was not used for so long.")
@json_option
def prune_command(cache_dir: str | None, max_size: float | None, unused: float | None, as_json: bool) -> None:
    """Remove damaged caches, and those beyond --max-size or --unused."""
    from automl_pt.data.cache.disk import pixels_folder, prune

    removed = prune(
        pixels_folder(cache_dir),
        max_bytes=None if max_size is None else int(max_size * 1e9),
        unused_seconds=None if unused is None else unused * 24 * 3600,
    )
    _print_removed(removed, as_json)


@command.command("clear")
@folder_option
@json_option
def clear_command(cache_dir: str | None, as_json: bool) -> None:
    """Remove all decoded images and features, the archives unpacked there, and the remembered hashes of files."""
    from automl_pt.data.cache.disk import clear_rest, pixels_folder, prune

    folder = pixels_folder(cache_dir)
    removed = prune(folder, max_bytes=0)
    clear_rest(folder)
    _print_removed(removed, as_json)


def _print_removed(removed: Sequence[CacheFile], as_json: bool) -> None:
    from automl_pt.core.files import to_json
    from automl_pt.data.cache.disk import gigabytes

    if as_json:
        click.echo(to_json([_values(cache) for cache in removed], indent=2))
        return
    _print_table(removed)
    click.echo(f"{len(removed)} caches removed, {gigabytes(sum(cache.size for cache in removed))}")


def _print_table(caches: Sequence[CacheFile]) -> None:
    from automl_pt.data.cache.disk import gigabytes

    rows = [
        (
            cache.path.stem,
            cache.kind if cache.backbone is None else f"{cache.kind} of {cache.backbone}",
            "damaged" if cache.count is None else cache.count,
            cache.image_size or "-",
            gigabytes(cache.size),
            _day(cache.used),
        )
        for cache in caches
    ]
    if rows:
        print_columns(("cache", "holds", "images", "side", "size", "last used"), rows, drop=("last used", "side"))


def _values(cache: CacheFile) -> dict[str, Any]:
    return {
        "name": cache.path.stem,
        "path": str(cache.path),
        "kind": cache.kind,
        "backbone": cache.backbone,
        "images": cache.count,
        "image_size": cache.image_size,
        "bytes": cache.size,
        "last_used": _day(cache.used),
    }


def _day(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
