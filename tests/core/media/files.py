"""Files for the tests of the media: made on the spot, as cameras, recorders and broken copies leave them."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from core.media.encoder import encoder_path


def drawing(width: int = 128, height: int = 96) -> np.ndarray:
    """A smooth picture without flat parts, uint8 [H, W, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / 9 + y / 31), 128 + 100 * np.sin(y / 7), 128 + 100 * np.cos((x + y) / 13)]
    return np.stack(waves, -1).astype(np.uint8)


def encoded(kind: str, pixels: np.ndarray | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(drawing() if pixels is None else pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def gray_png(values: np.ndarray, depth: int, beside: bytes = b"", colour: int = 0) -> bytes:
    """A PNG of gray ``values`` [H, W], or of [H, W, channels] at 16 bits, as cameras or scanners do."""
    height, width = values.shape[:2]
    rows = b""
    for row in values:
        if depth == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
        else:
            bits = "".join(format(int(value), f"0{depth}b") for value in row)
            bits += "0" * (-len(bits) % 8)
            rows += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    end = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + beside + end


def png_header(width: int, height: int) -> bytes:
    """A PNG that only claims its size."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", body) + png_chunk(b"IDAT", zlib.compress(b"\0" * 64))


def film(path: Path, *options: str, seconds: float = 4.0, rate: int = 25, size: str = "64x48") -> Path:
    """A test clip by ffmpeg; ``options`` go before the file's name."""
    source = f"testsrc=size={size}:rate={rate}:duration={seconds}"
    run("-f", "lavfi", "-i", source, *options, str(path))
    return path


def run(*options: str) -> None:
    """The ffmpeg that the program itself writes with."""
    subprocess.run([encoder_path(), "-y", "-loglevel", "error", *options], check=True)


# little moves for the first nine tenths of ten seconds: one frame in fifty, then all
STILL_FIRST = ("-vf", "select='if(lt(t,9),not(mod(n,50)),1)'", "-fps_mode", "vfr")
