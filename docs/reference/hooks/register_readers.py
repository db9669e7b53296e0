import struct

import numpy as np

from automl_pt import ImageHeader, ImageReader, hookimpl

MAGIC = b"ACMEPIX1"


def header(content):
    """Width and height stand behind the magic; a file may claim any, so nothing is allocated by them."""
    width, height = struct.unpack_from("<II", content, len(MAGIC))
    return ImageHeader(width, height, channels=1, dtype="uint16")


def read(content):
    """One channel of 16 bits follows; a file that is cut has fewer numbers, and is refused."""
    found = header(content)
    pixels = np.frombuffer(content, "<u2", offset=len(MAGIC) + 8)
    if pixels.size != found.width * found.height:
        raise ValueError(f"the file is truncated: {pixels.size} of {found.width * found.height} numbers")
    return pixels.reshape(found.height, found.width).astype(np.uint16)


@hookimpl
def register_readers():
    return [ImageReader("ACME", (".acme",), lambda start: start.startswith(MAGIC), header, read)]
