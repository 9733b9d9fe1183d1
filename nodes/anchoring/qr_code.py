"""QR codes (ISO/IEC 18004) of receipts' links: byte mode, error correction level M.

At most version 17, which 58 mm paper (384 dots) holds at four dots a module with its quiet zone;
504 bytes. A receipt's link has about 280: version 12 or 13.
"""

from __future__ import annotations

import io

import segno

MAX_VERSION = 17
#: Modules of white around a code.
QUIET_ZONE = 4
Matrix = list[list[bool]]


def qr_code(text: str) -> segno.QRCode:
    """The code. ValueError if the text is too long for a receipt's code."""
    raw = text.encode()
    try:
        code = segno.make_qr(raw, error="m", mode="byte", boost_error=False)
    except segno.DataOverflowError:
        code = None
    if code is None or int(code.version) > MAX_VERSION:
        raise ValueError(f"{len(raw)} bytes are too long for a receipt's code")
    return code


def qr_matrix(text: str) -> Matrix:
    """The modules, rows from above, True for dark, without the quiet zone. ValueError as above."""
    return [[bool(module) for module in row] for row in qr_code(text).matrix]


def qr_svg(text: str) -> str:
    """The code as an SVG with its quiet zone; scales to any size."""
    out = io.BytesIO()
    qr_code(text).save(
        out,
        kind="svg",
        border=QUIET_ZONE,
        light="#fff",
        xmldecl=False,
        omitsize=True,
        svgclass=None,
        lineclass=None,
        nl=False,
    )
    return out.getvalue().decode("ascii")
