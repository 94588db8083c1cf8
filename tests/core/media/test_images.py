"""Untrusted pictures: what stands beside the pixels neither refuses nor changes them, faults are told."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from core.errors import MediaError
from core.media import IMAGE_SUFFIXES, kind_of, read_image
from tests.core.media.files import drawing, encoded, gray_png, png_chunk, png_header

PNG, JPEG = encoded("PNG"), encoded("JPEG", quality=90)
BAD_IMAGES = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"hello, I am no picture", "not a readable image"),
    "page.jpg": (b"<html><script>alert(1)</script></html>", "not a readable image"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable image"),
    "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable image"),
    "signature.png": (b"\x89PNG\r\n\x1a\n", "not a readable image"),
    "huge.png": (png_header(100_000, 100_000), "megapixels"),
    "wide.png": (png_header(9000, 20), "8192 a side"),
    "ribbon.png": (png_header(4000, 10), "longer than 20 times"),
    "photo.tiff.png": (encoded("TIFF"), "not a readable image"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images(name, tmp_path):
    data, expected = BAD_IMAGES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MediaError, match=expected) as caught:
        read_image(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_image(tmp_path):
    for name in ("gone.png", "a" * 5000 + ".png"):
        with pytest.raises(MediaError, match="does not exist"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", [name for name in IMAGE_SUFFIXES if name in Image.registered_extensions()])
def test_what_pillow_saves_under_any_listed_name_is_read(suffix, tmp_path):
    Image.new("RGB", (20, 10), (10, 200, 30)).save(tmp_path / f"a{suffix}")
    assert kind_of(tmp_path / f"a{suffix}") == "image"
    assert read_image(tmp_path / f"a{suffix}").getpixel((5, 5)) == pytest.approx((10, 200, 30), abs=8)


def test_transparency_is_white(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "t.png")
    assert np.asarray(read_image(tmp_path / "t.png")).min() == 255


def test_rotated_photo_stands_upright(tmp_path):
    upright = Image.fromarray(drawing())
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how a camera holding it so has stored it
    for orientation, turn in back.items():
        stored = upright.transpose(Image.Transpose(turn))
        exif = stored.getexif()
        exif[274] = orientation
        stored.save(tmp_path / "r.png", exif=exif)
        assert np.array_equal(np.asarray(read_image(tmp_path / "r.png")), np.asarray(upright)), orientation


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (10, 10), c) for c in ("red", "blue")]
    for name in ("a.gif", "a.png", "a.webp"):
        frames[0].save(
            tmp_path / name,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if "web" in name else {}),
        )
        assert read_image(tmp_path / name).getpixel((5, 5)) == (255, 0, 0)


# -- depth


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_gray_by_the_depth_of_the_file(depth, tmp_path):
    most = 2**depth - 1
    values = np.array([[0, 1, most // 3, most // 2, most]] * 4)
    for clear in (None, 0, most):
        beside = b"" if clear is None else png_chunk(b"tRNS", struct.pack(">H", clear))
        (tmp_path / "g.png").write_bytes(gray_png(values, depth, beside))
        expected = np.where(values == clear, 255, values * 255 / most)
        seen = np.asarray(read_image(tmp_path / "g.png")).astype(float)
        assert np.abs(seen - expected[..., None]).max() <= 0.5, clear


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path):
    (tmp_path / "night.png").write_bytes(gray_png(np.arange(256).reshape(16, 16), 16))
    assert np.asarray(read_image(tmp_path / "night.png")).max() <= 1
    (tmp_path / "rgb.png").write_bytes(gray_png(np.arange(768).reshape(16, 16, 3) % 256, 16, colour=2))
    assert np.asarray(read_image(tmp_path / "rgb.png")).max() <= 1
    (tmp_path / "la.png").write_bytes(
        gray_png(np.dstack([np.arange(256).reshape(16, 16), np.full((16, 16), 65535)]), 16, colour=4)
    )
    assert np.asarray(read_image(tmp_path / "la.png")).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_16_bits_given_in_python(mode):
    values = np.array([[0, 100, 32768, 65535]])
    kind = {"I": "<i4", "I;16B": ">u2"}.get(mode, "<u2")
    image = Image.frombytes(mode, (4, 1), values.astype(kind).tobytes())
    assert np.asarray(read_image(image))[0, :, 0].tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "PA", "LA", "La", "RGBa", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "F", "LAB"]
)
def test_every_mode_of_pillow(mode):
    white = Image.new("RGB", (6, 4), "white")
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(white, *profiles, outputMode="LAB")
    elif mode in ("La", "RGBa", "PA"):
        image = white.convert({"La": "LA", "RGBa": "RGBA", "PA": "P"}[mode]).convert(mode)
    else:
        image = white.convert(mode)
    assert np.asarray(read_image(image)).min() >= 254
    assert read_image(image).mode == "RGB"


def test_arrays_given_in_python():
    for array in (
        np.full((4, 5), 255, np.uint8),
        np.full((4, 5, 3), 65535, np.uint16),
        np.ones((4, 5, 1)),
        np.ones((4, 5), bool),
    ):
        assert np.asarray(read_image(array)).min() == 255
    for array in (
        np.zeros((4, 5), np.int64),
        np.zeros((4, 5, 6), np.uint8),
        np.zeros((2, 4, 5, 3), np.uint8),
    ):
        with pytest.raises(MediaError, match="given as an array must be"):
            read_image(array)


# -- what stands beside the pixels


BOMB = b"note\0\0" + zlib.compress(bytes(30_000_000))
PNG_BESIDE = {
    "a huge text": png_chunk(b"zTXt", BOMB),
    "many texts": png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(900_000))) * 80,
    "broken texts": png_chunk(b"tEXt", b"")
    + png_chunk(b"iTXt", b"\xff\xfe")
    + png_chunk(b"zTXt", b"k\0\0no"),
    "a broken profile": png_chunk(b"iCCP", b"junk"),
    "a huge profile": png_chunk(b"iCCP", BOMB),
    "broken Exif": png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "absurd sizes": png_chunk(b"pHYs", b"1") + png_chunk(b"gAMA", b"") + png_chunk(b"cHRM", b"22"),
    "a wrong check sum": png_chunk(b"tEXt", b"a\0b")[:-4] + b"none",
}


@pytest.mark.parametrize("what", PNG_BESIDE)
@pytest.mark.parametrize("at", [33, -12])
def test_png_with(what, at, tmp_path):
    (tmp_path / "p.png").write_bytes(PNG[:at] + PNG_BESIDE[what] + PNG[at:])
    assert np.array_equal(np.asarray(read_image(tmp_path / "p.png")), drawing())


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


JPEG_BESIDE = {
    "a broken profile": segment(0xE2, b"ICC_PROFILE\0\x05\x01junk"),
    "a broken list of pictures": segment(0xE2, b"MPF\0junkjunkjunk"),
    "no Exif in Exif": segment(0xE1, b"Exif\0\0"),
    "Exif cut off": segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
    "an orientation of 99": segment(
        0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"
    ),
    "broken XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta \xff\xfe"),
    "broken Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff"),
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "long comments": segment(0xFE, b"\xff" * 60_000) * 3,
}


@pytest.mark.parametrize("what", JPEG_BESIDE)
def test_jpeg_with(what, tmp_path):
    (tmp_path / "whole.jpg").write_bytes(JPEG)
    (tmp_path / "p.jpg").write_bytes(JPEG[:2] + JPEG_BESIDE[what] + JPEG[2:])
    assert np.array_equal(
        np.asarray(read_image(tmp_path / "p.jpg")), np.asarray(read_image(tmp_path / "whole.jpg"))
    )


def test_webp_without_the_end_of_its_notes(tmp_path):
    data = encoded("WEBP", exif=b"Exif\0\0II*\0junk", xmp=b"<x:xmpmeta" + b"a" * 2000)
    (tmp_path / "whole.webp").write_bytes(data)
    (tmp_path / "p.webp").write_bytes(data[:-500])
    assert np.array_equal(
        np.asarray(read_image(tmp_path / "p.webp")), np.asarray(read_image(tmp_path / "whole.webp"))
    )


# -- a missing end


def interlaced() -> bytes:
    """A PNG whose rows come in seven passes."""
    pixels, rows = drawing(), b""
    for left, top, across, down in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[top::down, left::across])
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 128, 96, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


FILES = {
    "p.png": PNG,
    "interlaced.png": interlaced(),
    "p.jpg": JPEG,
    "progressive.jpg": encoded("JPEG", quality=90, progressive=True),
    "optimized.jpg": encoded("JPEG", optimize=True),
    "gray.jpg": encoded("JPEG", drawing()[..., 0]),
    "p.bmp": encoded("BMP"),
    "p.gif": encoded("GIF"),
    "p.webp": encoded("WEBP"),
    "lossless.webp": encoded("WEBP", lossless=True),
}


@pytest.mark.parametrize("name", FILES)
def test_a_little_missing_at_the_end_is_read(name, tmp_path):
    data = FILES[name]
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    for missing in (1, 2, 3, 14, 20):
        (tmp_path / name).write_bytes(data[:-missing])
        seen = np.asarray(read_image(tmp_path / name)).astype(int)
        assert seen.shape == whole.shape
        assert (np.abs(seen - whole).max(-1) > 24).mean() < 0.05, missing


@pytest.mark.parametrize("name", FILES)
def test_a_large_part_missing_is_refused(name, tmp_path):
    for part in (0.1, 0.4, 0.5):
        (tmp_path / name).write_bytes(FILES[name][: int(len(FILES[name]) * part)])
        with pytest.raises(MediaError, match="damaged or incomplete"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_what_follows_the_end_is_not_asked(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name] + b"PK\x03\x04 an archive" * 300)
    whole = np.asarray(Image.open(io.BytesIO(FILES[name])).convert("RGB"))
    assert np.array_equal(np.asarray(read_image(tmp_path / name)), whole)


def test_a_wrong_check_sum_of_the_pixels(tmp_path):
    at = PNG.index(b"IDAT")
    end = at + 4 + struct.unpack(">I", PNG[at - 4 : at])[0]
    for name, data in {
        "crc.png": PNG[:end] + b"none" + PNG[end + 4 :],
        "adler.png": PNG[: end - 4] + b"none" + PNG[end:],
    }.items():
        (tmp_path / name).write_bytes(data)
        assert np.array_equal(np.asarray(read_image(tmp_path / name)), drawing())


@given(st.sampled_from(sorted(FILES)), st.data())
@settings(max_examples=150, deadline=None)
def test_any_damage_gives_a_picture_or_a_sentence(tmp_path_factory, name, data):
    broken = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(broken)
    try:
        assert read_image(path).mode == "RGB"
    except MediaError as error:
        assert name in str(error) and "\n" not in str(error)
