"""Names the kind of a file that is not of a supported image format, by its first bytes."""

from __future__ import annotations

_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"), "a HEIC image"),
    **dict.fromkeys((b"mif1", b"msf1"), "a HEIF image"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF image"),
    **dict.fromkeys((b"isom", b"mp41", b"mp42", b"qt  ", b"M4V ", b"iso5", b"iso6"), "a video"),
}
_BEGINNINGS = (
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"II+\0", "a TIFF image"),
    (b"MM\0+", "a TIFF image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"II\xbc", "a JPEG XR image"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF file"),
    (b"%!PS", "a PostScript file"),
    (b"\0\0\1\0", "an icon file"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the image; `git lfs pull` fetches it"),
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"v/1\1", "an OpenEXR image"),
    *((f"P{kind}".encode() + space, "a PNM image") for kind in range(1, 8) for space in (b"\n", b" ", b"\r", b"\t")),
)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body")


def kind_of(content: bytes) -> str | None:
    """Return a description of a file's content; None if unknown."""
    if content[4:8] == b"ftyp":
        return _BRANDS.get(content[8:12])
    if content[128:132] == b"DICM":
        return "a DICOM image"
    start = content[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_HTML):
        return "an HTML page from a failed download"
    if start.startswith((b"<svg", b"<?xml")):
        return "an SVG image" if b"<svg" in content[:2048] else "an XML file"
    return next((kind for beginning, kind in _BEGINNINGS if content.startswith(beginning)), None)
