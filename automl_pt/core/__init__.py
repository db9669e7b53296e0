"""What every other part may use: errors, files, locks, text, seeds; it imports no other part of automl_pt."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("automl-pt")
except PackageNotFoundError:  # a checkout on the path that is not installed, where no tag is read
    __version__ = "0+unknown"
