import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from automl_pt.testing import check_reader
from automl_pt_dicom import header, read, register_readers


def scan(pixels: np.ndarray, **tags: object) -> bytes:
    """Return a DICOM file that pydicom writes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    bits = 8 * pixels.dtype.itemsize
    found.Rows, found.Columns = pixels.shape[-3:-1] if pixels.shape[-1] == 3 else pixels.shape[-2:]
    found.SamplesPerPixel = 3 if pixels.shape[-1] == 3 else 1
    found.PhotometricInterpretation = "RGB" if found.SamplesPerPixel == 3 else "MONOCHROME2"
    if found.SamplesPerPixel == 3:
        found.PlanarConfiguration = 0
    found.BitsAllocated = found.BitsStored = bits
    found.HighBit, found.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    found.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(found, name, value)
    content = io.BytesIO()
    pydicom.dcmwrite(content, found, enforce_file_format=True)
    return content.getvalue()


NUMBERS = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 300


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (scan(NUMBERS), NUMBERS),
        (scan((NUMBERS // 257).astype(np.uint8)), (NUMBERS // 257).astype(np.uint8)),
        (scan(NUMBERS, RescaleSlope="1", RescaleIntercept="-1024"), NUMBERS.astype(np.float32) - 1024),
        (scan(NUMBERS.astype(np.int16)), NUMBERS.astype(np.int16).astype(np.float32)),
        (scan(NUMBERS, PhotometricInterpretation="MONOCHROME1"), 65535 - NUMBERS),
        (scan(np.stack([NUMBERS, NUMBERS + 1]), NumberOfFrames=2), NUMBERS),
        (scan(np.full((4, 5, 3), 7, np.uint8)), np.full((4, 5, 3), 7, np.uint8)),
    ],
)
def test_an_image_keeps_its_numbers(content: bytes, expected: np.ndarray) -> None:
    found = read(content)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert header(content).dtype == str(expected.dtype)


def test_the_contract_of_a_reader() -> None:
    check_reader(register_readers()[0], scan(NUMBERS))


@pytest.mark.parametrize(("tags", "what"), [({"PhotometricInterpretation": "PALETTE COLOR"}, "palette")])
def test_what_is_not_read_says_why(tags: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        header(scan(NUMBERS, **tags))
