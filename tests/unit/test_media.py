"""Untrusted pictures and clips: each fault gets its own clear sentence, good files come through right."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from core.errors import MediaError
from core.media import probe_video, read_image, read_video, write_clip, write_image


def png_header(width: int, height: int) -> bytes:
    """A PNG that only claims its size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 64)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def encoded(kind: str, size=(64, 48)) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


BAD_IMAGES = {
    "empty.png": (b"", "is empty"),
    "text.png": (b"hello, I am no picture", "not a readable image"),
    "page.jpg": (b"<html><script>alert(1)</script></html>", "not a readable image"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable image"),
    "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable image"),
    "signature.png": (b"\x89PNG\r\n\x1a\n", "not a readable image"),
    "cut.png": (encoded("PNG")[:2000], "damaged or incomplete"),
    "cut.jpg": (encoded("JPEG")[:900], "damaged or incomplete"),
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
    with pytest.raises(MediaError, match="does not exist"):
        read_image(tmp_path / "gone.png")


def test_transparency_is_white(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "t.png")
    assert np.asarray(read_image(tmp_path / "t.png")).min() == 255


def test_sixteen_bit_gray_keeps_its_steps(tmp_path):
    steps = (np.arange(64, dtype=np.uint16)[None].repeat(8, 0)) * 1000
    Image.fromarray(steps).save(tmp_path / "g.png")
    seen = np.asarray(read_image(tmp_path / "g.png"))[0, :, 0].astype(int)
    assert np.abs(seen - steps[0] / 257).max() <= 1.5


def test_rotated_photo_stands_upright(tmp_path):
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "r.jpg", exif=exif)
    assert read_image(tmp_path / "r.jpg").size == (20, 40)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (10, 10), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif").getpixel((5, 5)) == (255, 0, 0)


@pytest.fixture
def clip(tmp_path):
    """A clip of 17 frames, each a gray of its own."""
    frames = np.stack([np.full((32, 48, 3), 10 + 14 * i, np.uint8) for i in range(17)])
    return write_clip(frames, tmp_path / "clip.mp4", fps=8, recipe={"prompt": "gräy"})


def test_written_clips_play_everywhere(clip):
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "fast start"
    assert b"avc1" in data and "gräy".encode() in data
    assert not list(clip.parent.glob("*.part*"))
    capture = cv2.VideoCapture(str(clip))
    assert capture.get(cv2.CAP_PROP_FPS) == 8 and int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 17
    assert capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT) == cv2.VideoWriter.fourcc("I", "4", "2", "0")


def test_writing_twice_gives_the_same_bytes(tmp_path):
    frames = np.random.default_rng(1).integers(0, 255, (9, 32, 32, 3), np.uint8)
    first, second = write_clip(frames, tmp_path / "1.mp4"), write_clip(frames, tmp_path / "2.mp4")
    assert first.read_bytes() == second.read_bytes()


def test_failed_writing_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(MediaError, match="could not be written"):
        write_clip(np.zeros((1, 32, 32, 3), np.uint8), tmp_path / "file" / "clip.mp4")
    with pytest.raises(MediaError, match="could not be written"):
        write_image(np.zeros((32, 32, 3), np.uint8), tmp_path / "file" / "picture.png")


def grays(frames: np.ndarray) -> list[int]:
    return [round((int(f.mean()) - 10) / 14) for f in frames]


def test_frames_are_spread_evenly(clip):
    assert probe_video(clip).duration_s == pytest.approx(2.0, abs=0.01)
    assert grays(read_video(clip, 5)) == [0, 4, 8, 12, 16]
    assert grays(read_video(clip, 3, start_s=0.5, end_s=1.0)) == [4, 6, 8]
    assert len(read_video(clip, 64)) == 17
    assert grays(read_video(clip, 1)) == [0]
    with pytest.raises(MediaError, match="holds no frame"):
        read_video(clip, 4, start_s=9)
    with pytest.raises(MediaError, match="choose 1 to"):
        read_video(clip, 0)


def bad_videos(clip: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"no clip at all", "not a readable video"),
        "picture.mp4": (encoded("JPEG"), "not a readable video|no frame"),
        "cut.mp4": (clip[: len(clip) // 3], "not a readable video|incomplete|no frame"),
        "list.mp4": (b"ffconcat version 1.0\nfile clip.mp4\n", "not a readable video"),
        "stream.mp4": (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n", "not a readable video"),
    }


@pytest.mark.parametrize("name", list(bad_videos(b"x" * 9)))
def test_bad_videos(name, clip, tmp_path):
    data, expected = bad_videos(clip.read_bytes())[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MediaError, match=expected) as caught:
        read_video(tmp_path / name, 4)
    assert name in str(caught.value)


def test_oversized_video(tmp_path, monkeypatch, clip):
    monkeypatch.setattr("core.media.videos.MAX_FILE_BYTES", 100)
    with pytest.raises(MediaError, match="large"):
        probe_video(clip)
    monkeypatch.undo()
    monkeypatch.setattr("core.media.videos.MAX_DURATION_S", 1.0)
    with pytest.raises(MediaError, match=r"long|at most"):
        probe_video(clip)
    monkeypatch.setattr("core.media.videos.MAX_SIDE", 40)
    with pytest.raises(MediaError, match="pixels"):
        probe_video(clip)
