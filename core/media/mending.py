"""Picture files whose pixels are whole, or nearly, though something beside them or their very end is not.

Each function gives the bytes of a file that holds the pixels alone.
Where more than a twentieth of the picture is missing it gives None: what is left is no longer what was taken.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

MOST_MISSING = 0.05
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"eXIf")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# first column, first row, steps between columns and rows of each of the seven passes of an interlaced PNG
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATE_STEP = 256  # bytes: so little is lost where a stream breaks
_JPEG_MID_GRAY = 128
_WEBP_MORE = 256  # zeros behind the end: what stands for missing codes may be longer than they were
_WEBP_BESIDE = 0x2C  # the flags of a WebP that announce a profile, Exif and XMP


def mended(data: bytes, format_name: str, max_pixels: int) -> bytes | None:
    """The picture in ``data`` without whatever is broken beside its pixels, None where nothing can be done.

    Args:
        data: the bytes of a whole file.
        format_name: Pillow's name of its format.
        max_pixels: of a picture that is unpacked here.
    """
    if format_name == "PNG":
        return _mended_png(data, max_pixels)
    if format_name == "JPEG":
        return _mended_jpeg(data)
    if format_name == "WEBP":
        return _mended_webp(data)
    if format_name == "GIF":
        return _mended_gif(data)
    return data + bytes(int(len(data) * MOST_MISSING))  # BMP: black for the missing end


def is_filler(image: Image.Image) -> bool:
    """Whether too much of a JPEG's end is what its decoder puts where there is nothing: exact mid-gray."""
    pixels = np.asarray(image).reshape(image.height, -1).astype(np.int16)
    real = np.flatnonzero((np.abs(pixels - _JPEG_MID_GRAY) > 1).any(axis=1))
    rows = int(real[-1]) + 1 if len(real) else 0
    return rows < (1.0 - MOST_MISSING) * image.height


# -- PNG


def _mended_png(data: bytes, max_pixels: int) -> bytes | None:
    chunks = list(_png_chunks(data))
    header = next((body for kind, body in chunks if kind == b"IHDR" and len(body) == 13), None)
    if header is None:
        return None
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    kept = [(kind, body) for kind, body in chunks if kind in _PNG_KEPT]
    if width * height > max_pixels or colour not in _PNG_CHANNELS:
        return _png(kept, b"")  # its size is refused by whoever reads it
    rows = list(_png_rows(width, height, depth * _PNG_CHANNELS[colour], bool(interlaced)))
    pixels = _inflated([body for kind, body in chunks if kind == b"IDAT"], sum(rows))
    if len(pixels) < (1.0 - MOST_MISSING) * sum(rows):
        return None
    return _png(kept, _filled_up(pixels, rows))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kinds and bodies up to the end mark; the last body may be cut, check sums are not asked."""
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"IEND" or not kind.isalpha():
            return
        yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def _png_rows(width: int, height: int, bits: int, interlaced: bool) -> Iterator[int]:
    """Bytes of each row of pixels in the file, the one that names its filter included; ``bits`` a pixel."""
    for left, top, across, down in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns = -(-(width - left) // across)
        rows = -(-(height - top) // down)
        if columns > 0:
            yield from [1 + (columns * bits + 7) // 8] * max(0, rows)


def _inflated(bodies: list[bytes], length: int) -> bytes:
    """What can be unpacked, at most ``length`` bytes; the stream's check sum at its end is not asked."""
    packed = b"".join(bodies)[2:]
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    unpacked = bytearray()
    for start in range(0, len(packed), _INFLATE_STEP):
        if len(unpacked) >= length or stream.eof:
            break
        try:
            unpacked += stream.decompress(packed[start : start + _INFLATE_STEP])
        except zlib.error:
            break
    return bytes(unpacked[:length])


def _filled_up(pixels: bytes, rows: list[int]) -> bytes:
    """``pixels`` with the missing rows the same as the last one above."""
    filled = bytearray(pixels)
    end = 0  # of the row, in bytes
    for length in rows:
        if end >= len(pixels):
            filled += b"\x02" + bytes(length - 1)  # filter "up", no difference
        end += length
        filled += bytes(max(0, end - len(filled)))
    return bytes(filled)


def _png(chunks: list[tuple[bytes, bytes]], pixels: bytes) -> bytes:
    made = b"\x89PNG\r\n\x1a\n"
    for kind, body in [*chunks, (b"IDAT", zlib.compress(pixels, 1)), (b"IEND", b"")]:
        made += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return made


# -- JPEG


def _mended_jpeg(data: bytes) -> bytes | None:
    """The segments that say how to decode, Exif's orientation among them, the scans and an end mark."""
    made = b"\xff\xd8"
    position = 2
    while position + 4 <= len(data):
        # a segment: 0xFF, its marker, its length in bytes, its body
        marker = data[position + 1]
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position] != 0xFF:
            return None
        if marker == 0xFF:  # a filling byte
            position += 1
            continue
        segment = data[position : position + 2 + length]
        if marker == 0xDA:  # the scans begin
            scans = data[position:]
            if not _all_scans_begun(made, scans):
                return None
            return made + scans + b"\xff\xd9"
        # beside the picture: the program's own segments and comments, but what says its colours and its turn
        beside = 0xE0 <= marker <= 0xEF or marker == 0xFE
        says_colours = segment[4:9] == b"Adobe" and length >= 14
        if not beside or says_colours or segment[4:10] == b"Exif\0\0":
            made += segment
        position += 2 + length
    return None


def _all_scans_begun(head: bytes, scans: bytes) -> bool:
    """Whether the last scan of every colour has begun; before, a progressive JPEG lacks detail everywhere."""
    frame = next(
        (at for at in range(len(head)) if head[at] == 0xFF and head[at + 1] in (0xC0, 0xC1, 0xC2)), None
    )
    if frame is None:
        return True
    # the frame's header lists the colours; each scan names its own, and how fine it is
    components = set(head[frame + 10 : frame + 10 + 3 * head[frame + 9] : 3])
    position = scans.find(b"\xff\xda")
    while position >= 0:
        count = scans[position + 4] if position + 4 < len(scans) else 0
        ends = scans[position + 5 + 2 * count : position + 8 + 2 * count]
        if len(ends) == 3 and ends[1] == 63 and ends[2] & 15 == 0:
            components -= set(scans[position + 5 : position + 5 + 2 * count : 2])
        position = scans.find(b"\xff\xda", position + 2)
    return not components


# -- WebP


def _mended_webp(data: bytes) -> bytes | None:
    """The chunks that hold pixels; the last one filled up with zeros where little of it is missing."""
    kept = b""
    position = 12
    while position + 8 <= len(data):
        # a chunk: its kind, its length in bytes, its body, filled up to an even length
        kind, length = struct.unpack("<4sI", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        missing = length - len(body)
        if kind in (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            if missing > MOST_MISSING * length:
                break
            if kind == b"VP8X":
                body = bytes([body[0] & ~_WEBP_BESIDE]) + body[1:]
            if missing and kind in (b"VP8 ", b"VP8L"):
                missing += _WEBP_MORE
            body += bytes(missing)
            kept += struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) % 2)
        position += 8 + length + length % 2
    if not kept:
        return None
    return b"RIFF" + struct.pack("<I", len(kept) + 4) + b"WEBP" + kept


# -- GIF


def _mended_gif(data: bytes) -> bytes | None:
    """The file up to its cut with a few codes more, each of which is the first colour, and the end mark."""
    if len(data) < 13:
        return None
    position = 13 + _gif_colours(data[10])
    while position < len(data) and data[position] in (0x21, 0x2C):
        # a block: its head, then parts of at most 255 bytes up to an empty one
        extension = data[position] == 0x21
        if extension:
            position += 2
        else:
            position += 11 + _gif_colours(int.from_bytes(data[position + 9 : position + 10]))
        start = position
        while position < len(data) and data[position]:
            position += 1 + data[position]
        if position >= len(data):
            break
        position += 1
        if not extension:
            return None  # the first frame is whole: what is broken is not its end
    if position < len(data) or extension:
        return None
    more = bytes(position - len(data))
    blocks = max(1, int((len(data) - start) * MOST_MISSING) // 256)
    return data + more + (b"\xff" + bytes(255)) * blocks + b"\0;"


def _gif_colours(flags: int) -> int:
    """Bytes of the table of colours that flags announce."""
    if not flags & 0x80:
        return 0
    return 3 << (flags & 7) + 1
