"""Name formats that the service does not decode, besides those that Pillow names."""

from __future__ import annotations

import re

RAW_PHOTO = "raw photos of a camera are not supported; export the photo as JPEG"

# Drawings may begin with long comments.
_HEAD_BYTES = 1 << 16
_CONVERT = "convert the image to JPEG or PNG"
_EXPORT = "export the image as JPEG or PNG"
# What a file starts with, and the error. TGA has no signature: its header must be plausible.
_DETAILS = [
    (re.compile(start, re.DOTALL), detail)
    for start, detail in (
        (rb"FUJIFILMCCD-RAW |II(RO|RS|U\0)|MMOR|FOVb|\0MRM|II\x1a\0\0\0HEAPCCDR", RAW_PHOTO),
        (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", f"JPEG XL images are not supported; {_CONVERT}"),
        (rb"II\xbc\x01", f"JPEG XR images are not supported; {_CONVERT}"),
        (rb"v/1\x01", f"OpenEXR images are not supported; {_CONVERT}"),
        (rb"#\?(RADIANCE|RGBE)", f"Radiance HDR images are not supported; {_CONVERT}"),
        (rb"BPG\xfb", f"BPG images are not supported; {_CONVERT}"),
        (rb"gimp xcf ", f"GIMP files are not supported; {_EXPORT}"),
        (rb".{128}DICM", f"DICOM files are not supported; {_EXPORT}"),
        (rb".{0,1023}?%PDF-", "PDF documents are not supported; export the page as JPEG or PNG"),
        (
            # After a prolog, whose document type may have declarations of its own.
            rb"(\xef\xbb\xbf)?(\s++|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^[>]*+(\[.*?\]\s*+)?>)*+<([\w.-]++:)?svg\b",
            "SVG drawings are not supported; export the drawing as JPEG or PNG",
        ),
        (rb"\x1f\x8b\x08", "gzip files are not supported; send the image that is inside"),
        (
            rb".(\0[\x02\x03\n\x0b]\0{5}|\x01[\x01\t].{4}[\x0f\x10\x18\x20]).{8}[\x08\x0f\x10\x18\x20]",
            f"TGA images are not supported; {_CONVERT}",
        ),
    )
]


def refusal(data: bytes) -> str | None:
    """The `detail` of the error, or None if the format is not known."""
    head = data[:_HEAD_BYTES]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16
        head = head[2:].replace(b"\0", b"")
    return next((detail for start, detail in _DETAILS if start.match(head)), None)
