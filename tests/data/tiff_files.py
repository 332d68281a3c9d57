"""Image files of kinds that no library writes."""

import struct

import numpy as np


def tiff(values, photometric=None, extra=None, planar=1, orientation=1, pages=1, order="<"):
    """Return an uncompressed TIFF of values of any type, shape (H, W) or (H, W, channels)."""
    values = values.astype(values.dtype.newbyteorder(order))
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    if photometric is None:
        photometric = 2 if channels in (3, 4) else 1
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    planes = channels if planar == 2 else 1
    data = (np.moveaxis(values, 2, 0) if planes > 1 else values).tobytes()
    mark = b"II*\0" if order == "<" else b"MM\0*"
    content = bytearray(mark + struct.pack(f"{order}I", 8 + len(data) * pages) + data * pages)
    for page in range(pages):
        start = 8 + page * len(data)
        strips = [start + k * len(data) // planes for k in range(planes)]
        tags = {
            256: (4, [width]),
            257: (4, [height]),
            258: (3, [values.dtype.itemsize * 8] * channels),
            259: (3, [1]),
            262: (3, [photometric]),
            273: (4, strips),
            274: (3, [orientation]),
            277: (3, [channels]),
            278: (4, [height]),
            279: (4, [len(data) // planes] * planes),
            284: (3, [planar]),
            **({} if extra is None else {338: (3, extra)}),
            339: (3, [kind] * channels),
        }
        beyond = len(content) + 2 + 12 * len(tags) + 4
        entries, more = b"", b""
        for tag, (type_, numbers) in tags.items():
            raw = b"".join(struct.pack(order + {3: "H", 4: "I"}[type_], n) for n in numbers)
            value = raw.ljust(4, b"\0")
            if len(raw) > 4:
                value = struct.pack(f"{order}I", beyond + len(more))
                more += raw
            entries += struct.pack(f"{order}HHI", tag, type_, len(numbers)) + value
        following = 0 if page == pages - 1 else beyond + len(more)
        content += struct.pack(f"{order}H", len(tags)) + entries
        content += struct.pack(f"{order}I", following) + more
    return bytes(content)
