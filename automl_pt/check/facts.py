"""What one image file is found to be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import PIL

from automl_pt.images.read import RULE

#: facts found by another version are found again
VERSION = f"4 {RULE} {PIL.__version__}"
#: side in pixels of the picture kept to compare alike images by
THUMB = 16


@dataclass(frozen=True)
class Facts:
    """One file's content: its fault, or its form and two fingerprints of what it shows."""

    #: one of images.Fault, or "" for an image that decodes whole
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
        """Return what differs from the defaults."""
        return {key: value for key, value in asdict(self).items() if value != getattr(_NONE, key)}


_NONE = Facts()
