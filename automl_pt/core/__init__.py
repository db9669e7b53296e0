"""What every other part may use: errors, files, locks, text, seeds; it imports no other part of automl_pt.

Importing it imports nothing, because `safe_path` has to run before any file of the working folder could be imported.
"""


def __getattr__(name: str) -> str:
    """Return `__version__`, that of the installed distribution; raise AttributeError for any other name."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("automl-pt")
    except PackageNotFoundError:  # a checkout on the path that is not installed, where no tag is read
        return "0+unknown"
