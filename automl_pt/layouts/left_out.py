"""Files that are found but not used: whether they may be images, why they are ignored, and how many there are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from automl_pt.core.text import few, printable

HIDDEN = "hidden, or a system file"
NO_CLASS = "in no class folder"
NO_IMAGE = "not a JPEG, PNG, WebP, BMP, GIF or TIFF file by its ending"
OUTSIDE = "a link that leaves the dataset; --follow-links takes it"
#: lower-case names of files and folders that systems, network disks and tools create
_OF_SYSTEMS = frozenset(
    {
        *("__macosx", ".ds_store", "icon\r", ".appledouble", ".trashes", ".fseventsd", ".spotlight-v100"),
        *(".temporaryitems", ".documentrevisions-v100", ".apdisk", ".localized", "network trash folder"),
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("found.000", "picasa.ini", ".picasa.ini", ".picasaoriginals", "zbthumbnail.info", "lost.dir"),
        *("@eadir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@recycle", "@recently-snapshot", ".@__thumb"),
        *("lost+found", ".directory", ".nfs", "~snapshot", ".snapshot", ".ipynb_checkpoints", "__pycache__"),
        *("@sharesnap", "@recently_snapshot", "lost.dir", ".nomedia", ".thumbnails", ".comments", ".xvpics"),
    }
)
#: image formats that are not supported, with their endings
NOT_READ = {
    ending: kind
    for kind, endings in {
        "whole-slide TIFF": ".btf .svs .ndpi .scn",
        "HEIC": ".heic .heics",
        "HEIF": ".heif .heifs .hif",
        "AVIF": ".avif .avifs",
        "PNM": ".ppm .pgm .pbm .pnm .pam .pfm",
        "JPEG 2000": ".jp2 .j2k .jpf .jpx .jpm .j2c .jpc",
        "JPEG XL": ".jxl",
        "JPEG XR": ".jxr .wdp .hdp",
        "DICOM": ".dcm .dicom .dic",
        "NIfTI": ".nii",
        "Photoshop": ".psd .psb",
        "camera raw": ".raw .dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .orf .rw2 .raf .pef .x3f .3fr .erf .kdc .dcr "
        ".mrw .rwl .iiq .srw .mef .mos",
        "Targa": ".tga",
        "icon": ".ico .icns .cur",
        "SVG": ".svg .svgz",
        "PostScript": ".eps .ps .ai",
        "OpenEXR": ".exr",
        "Radiance": ".hdr",
        "DirectDraw": ".dds",
        "PCX": ".pcx",
        "X bitmap": ".xbm .xpm",
        "FITS": ".fits .fit .fts",
        "NumPy": ".npy .npz",
    }.items()
    for ending in endings.split()
}
#: what converts a format, or makes it readable; for any other ImageMagick is named
_CONVERT = {
    "whole-slide TIFF": "`vips dzsave FILE tiles --suffix .png` cuts it into tiles",
    "JPEG XL": "`djxl IN.jxl OUT.png` converts it",
    "DICOM": "`pip install ./plugins/automl-pt-dicom` in the checkout adds it",
    "NIfTI": "write each slice as a TIFF file",
    "NumPy": "write each array as a TIFF file",
    "FITS": "write each plane as a TIFF file",
    "camera raw": "`darktable-cli FILE OUT.png` develops it",
}
_NO_IMAGES_TEXT = (
    ".txt .csv .tsv .json .jsonl .ndjson .xml .yaml .yml .toml .ini .cfg .conf .md .rst .html .htm .css .js .py .pyc "
    ".ipynb .sh .bat .log .doc .docx .odt .rtf .xls .xlsx .ods .parquet .feather .arrow .pkl .pickle .pt .pth .ckpt "
    ".onnx .safetensors .tex .bib .names .data .list .lst .license .cache .db .sqlite .url .lnk .sha256 .md5"
)
#: endings of files that certainly hold no image; files with other endings may
_NO_IMAGES = frozenset(_NO_IMAGES_TEXT.split())
#: names without an ending that are no images
_TEXTS = frozenset(("readme", "license", "licence", "makefile", "copying", "notice", "authors", "changelog"))


def suffix(name: str) -> str:
    """Return a name's ending in lower case."""
    return os.path.splitext(name)[1].lower()


def is_of_system(name: str) -> bool:
    """Return whether a file or folder of this name is a system's, such as `._x`, `__MACOSX` or `Thumbs.db`."""
    return name.startswith("._") or name.casefold() in _OF_SYSTEMS


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or a system file."""
    return name.startswith(".") or name.casefold() in _OF_SYSTEMS


def why_not(name: str) -> str:
    """Return why a file does not count as an image, by its ending."""
    if (kind := NOT_READ.get(suffix(name))) is not None:
        return f"{kind} is not read; {_CONVERT.get(kind) or _by_magick(name)}"
    return NO_IMAGE


def _by_magick(name: str) -> str:
    return f"`magick mogrify -format png *{printable(os.path.splitext(name)[1])}` converts it to PNG"


def may_be_image(name: str, why: str) -> bool:
    """Return whether a user may consider an ignored file an image, so that a class must not lose it silently."""
    if why == HIDDEN:
        return not is_of_system(name.rpartition("/")[2])
    if why not in (NO_IMAGE, NO_CLASS):
        return True
    if why == NO_CLASS or suffix(name) in _NO_IMAGES:
        return False
    return suffix(name) != "" or name.rpartition("/")[2].casefold() not in _TEXTS


def summary(left_out: Sequence[tuple[str, str]]) -> str | None:
    """Summarise how many files are ignored and why; None if there are none but system files.

    Images in no class folder and repeated rows of a table have their own notes.
    """
    named = {_kind(name, why): name for name, why in left_out if not _is_told(name, why)}
    kinds = Counter(_kind(name, why) for name, why in left_out if not _is_told(name, why))
    counted = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    reasons = (f"{n} {kind}" if n > 1 or kind[0] != "(" else f"{named[kind]} {kind}" for kind, n in counted)
    return f"ignored: {few(reasons, 8)}" if kinds else None


def notes(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """Return a note with the numbers of ignored files, in a list that is empty if there are none."""
    text = summary(left_out)
    return [] if text is None else [f"{text}; `automl-pt check` lists them"]


def _is_told(name: str, why: str) -> bool:
    return why == NO_CLASS or " repeats line " in why or (why == HIDDEN and is_of_system(name.rpartition("/")[2]))


def _kind(name: str, why: str) -> str:
    ending = printable(os.path.splitext(name)[1])
    if why == NO_IMAGE:
        return f"{ending} (no image by its ending)" if ending else "without an ending"
    if ending.lower() in NOT_READ and why == why_not(name):
        return f"{ending} ({why})"
    return "hidden" if why == HIDDEN else f"({why})"
