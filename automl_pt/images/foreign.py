"""Names the kind of a file that is not of a supported image format, by its first bytes."""

from __future__ import annotations

#: what makes PNG files of formats that are not read, by their endings without the dot
_MAGICK = "`magick mogrify -format png *.{}` converts it"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"), f"a HEIC image; {_MAGICK.format('heic')}"),
    **dict.fromkeys((b"mif1", b"msf1"), f"a HEIF image; {_MAGICK.format('heif')}"),
    **dict.fromkeys((b"avif", b"avis"), f"an AVIF image; {_MAGICK.format('avif')}"),
    **dict.fromkeys((b"isom", b"mp41", b"mp42", b"qt  ", b"M4V ", b"iso5", b"iso6"), "a video"),
}
_BEGINNINGS = (
    (b"\xff\x0a", "a JPEG XL image; `djxl IN.jxl OUT.png` converts it"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image; `djxl IN.jxl OUT.png` converts it"),
    (b"\0\0\0\x0cjP  ", f"a JPEG 2000 image; {_MAGICK.format('jp2')}"),
    (b"\xff\x4f\xff\x51", f"a JPEG 2000 image; {_MAGICK.format('j2k')}"),
    (b"II\xbc", f"a JPEG XR image; {_MAGICK.format('jxr')}"),
    (b"8BPS", f"a Photoshop file; {_MAGICK.format('psd')}"),
    (b"%PDF", "a PDF file; `pdftoppm -png FILE.pdf page` writes its pages as images"),
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
        return "a DICOM image; `pip install ./plugins/automl-pt-dicom` in the checkout adds it"
    start = content[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_HTML):
        return "an HTML page from a failed download; download the image again, as `curl --fail -LO ADDRESS` does"
    if start.startswith((b"<svg", b"<?xml")):
        return "an SVG image" if b"<svg" in content[:2048] else "an XML file"
    return next((kind for beginning, kind in _BEGINNINGS if content.startswith(beginning)), None)
