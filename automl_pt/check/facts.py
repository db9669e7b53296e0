"""The facts that a check finds in one image file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import PIL

from automl_pt.images.read import RULE

#: facts of other versions are computed again
VERSION = f"5 {RULE} {PIL.__version__}"
#: side in pixels of the picture that is stored for comparing similar images
THUMB = 16


@dataclass(frozen=True)
class Facts:
    """The facts of one file's content: its fault, or its format and two fingerprints."""

    #: a value of images.Fault, or "" for an image that decodes completely
    fault: str = ""
    reason: str = ""
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    animated: bool = False
    alpha: bool = False
    sixteen_bit: bool = False
    complaint: str = ""
    #: perceptual hash, 64 bits in hexadecimal
    look: str = ""
    #: grey, uint8[THUMB, THUMB], in hexadecimal
    thumb: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        return {key: value for key, value in asdict(self).items() if value != getattr(_NONE, key)}


_NONE = Facts()
