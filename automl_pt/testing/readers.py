"""The contract of an image reader, checked on one file of its format that the plugin's test makes."""

from __future__ import annotations

from typing import Any

import numpy as np

from automl_pt.core.errors import AutomlError
from automl_pt.images.decode import decode
from automl_pt.images.deep import header_by, reader_for
from automl_pt.images.formats import described, picture
from automl_pt.images.read import SUFFIXES, UnreadableImage
from automl_pt.plugins.readers import BEGINNING, ImageReader, use_readers
from automl_pt.testing.contract import expect

#: beginnings of the formats that automl-pt reads itself, which no reader may take over
_OTHERS = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM", b"II*\0", b"", bytes(200))
#: shares of the file that are left of it when it is cut
_CUTS = (0.3, 0.6, 0.95)
_SIDE = 8


def check_reader(reader: ImageReader | str, content: bytes | None = None) -> None:
    """Raise PluginError for the first point of the contract that `reader`, or the one of that name, breaks.

    `content` is a whole file of its format, with one image of which every byte counts at the end, as a writer leaves
    it. The reader recognises this file and no photograph; says its size, channels and type without decoding; returns
    these, twice the same; and refuses each part of the file with ValueError. Without `content` only its names, and
    that it recognises no other format, are checked. Needs no network.
    """
    if isinstance(reader, str):
        from automl_pt.plugins.manager import load_plugins

        known = load_plugins().of_kind(ImageReader)
        given = f"{reader}; registered are {', '.join(known)}"
        expect(reader in known, "a reader of this name is registered", came=given, look="the hook register_readers")
        reader = known[reader]
    _check_names(reader)
    _check_recognises(reader)
    if content is None:
        return
    known_file = bool(reader.recognises(content[:BEGINNING]))
    expect(known_file, "the file is recognised", came="it is not", look="ImageReader(recognises=...)")
    use_readers([reader])
    expect(reader_for(content) is not None, "the file is read by a plugin", came="by Pillow", look="recognises(start)")
    _check_pixels(reader, content)
    _check_cuts(reader, content)


def _check_names(reader: ImageReader) -> None:
    plain = all(one.startswith(".") and one == one.lower() and one not in SUFFIXES for one in reader.suffixes)
    rule = "endings are in lower case, with a dot, and of no photograph"
    expect(plain and bool(reader.suffixes), rule, came=repr(reader.suffixes), look="ImageReader(suffixes=...)")


def _check_recognises(reader: ImageReader) -> None:
    look = "ImageReader(recognises=...)"
    for other in _OTHERS:
        if reader.name != "TIFF" or not other.startswith(b"II"):
            taken = bool(reader.recognises(other))
            expect(not taken, "files of other formats are not recognised", came=repr(other), look=look)


def _check_pixels(reader: ImageReader, content: bytes) -> None:
    header = header_by(reader, content, reader.name)
    pixels = _read(reader, content)
    came = f"{pixels.dtype}{list(pixels.shape)}, and the header says {header}"
    told = (header.height, header.width, header.channels, header.dtype)
    shape = (*pixels.shape, 1)[:3]
    expect((*shape, str(pixels.dtype)) == told, "the pixels are as the header says", came=came, look="header and read")
    same = np.array_equal(pixels, _read(reader, content))
    expect(same, "a file gives the same pixels each time", came="others", look="ImageReader(read=...)")
    found = described(content, reader.name)
    decoded = decode(content, _SIDE, pixels=found.pixels)
    expected = (found.pixels.channels, _SIDE, _SIDE)
    expect(decoded.shape == expected, "an image can be resized", came=f"{list(decoded.shape)}", look="read")
    picture(content, name=reader.name)


def _check_cuts(reader: ImageReader, content: bytes) -> None:
    for share in _CUTS:
        part = content[: int(len(content) * share)]
        try:
            decode(part, _SIDE, name=f"{share:.0%} of the file", pixels=described(part, "a part").pixels)
        except UnreadableImage:
            continue
        rule = "a part of a file is an error, and no pixel is invented"
        expect(False, rule, came=f"{share:.0%} of the file was read", look="header and read, which raise ValueError")


def _read(reader: ImageReader, content: bytes) -> Any:
    try:
        return reader.read(content)
    except AutomlError:
        raise
    except Exception as error:
        came = f"{type(error).__name__}: {error}"
        expect(False, "a whole file is read", came=came, look="ImageReader(read=...)")
        raise
