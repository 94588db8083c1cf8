"""What is a picture and what is a clip: told by what is in a file, by its name where that is silent."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from core.errors import MediaError
from core.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, kind_of, probe_video, read_image
from tests.core.media.files import encoded, film


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("name", ["photo", "photo.JFIF", "photo.mp4", "photo.txt"])
def test_pictures_by_content(kind, name, tmp_path):
    (tmp_path / name).write_bytes(encoded(kind))
    assert kind_of(tmp_path / name) == "image"
    assert read_image(tmp_path / name).size == (128, 96)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", ("-c:v", "libx264")),
        ("mp4", ("-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov")),
        ("mkv", ("-c:v", "libx264")),
        ("webm", ("-c:v", "libvpx")),
        ("avi", ("-c:v", "mpeg4")),
        ("ts", ("-c:v", "libx264")),
        ("m2ts", ("-c:v", "libx264", "-f", "mpegts", "-mpegts_m2ts_mode", "1")),
        ("mpg", ("-c:v", "mpeg2video")),
        ("m2v", ("-c:v", "mpeg2video")),
        ("gif", ()),
    ],
)
def test_clips_by_content(suffix, options, tmp_path):
    made = film(tmp_path / f"made.{suffix}", *options, seconds=1)
    for name in ("clip", "clip.txt", f"CLIP.{suffix.upper()}"):
        (tmp_path / name).write_bytes(made.read_bytes())
        assert kind_of(tmp_path / name) == "video"
        assert len(probe_video(tmp_path / name).times_s) == 25


def test_a_gif_is_a_clip_when_it_moves(tmp_path):
    frames = [Image.fromarray(np.full((20, 30, 3), shade, np.uint8)) for shade in (0, 255)]
    frames[0].save(tmp_path / "still.gif")
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
    assert kind_of(tmp_path / "still.gif") == "image" and kind_of(tmp_path / "moves.gif") == "video"
    for name in ("still.gif", "moves.gif"):
        assert read_image(tmp_path / name).size == (30, 20), "as a picture: the first frame"
    for name in ("a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert kind_of(tmp_path / name) == "image"


def test_names_where_the_content_says_nothing(tmp_path):
    for suffix in ("jfif", "JPE", "jfi"):
        assert kind_of(f"gone.{suffix}") == "image"
    for suffix in ("m2ts", "MTS", "m4v", "qt", "3g2", "mpeg"):
        assert kind_of(f"gone.{suffix}") == "video"
    assert not set(IMAGE_SUFFIXES) & set(VIDEO_SUFFIXES)
    (tmp_path / "notes.docx").write_bytes(b"PK\x03\x04")
    with pytest.raises(
        MediaError, match=r"'notes.docx' is neither a picture nor a clip; pictures: PNG, .*; clips: MP4"
    ):
        kind_of(tmp_path / "notes.docx")
    for name in ("gone", "a" * 5000, "a\0b", "a\ud83d"):
        with pytest.raises(MediaError, match="does not exist") as caught:
            kind_of(tmp_path / name)
        assert len(str(caught.value)) < 400


def test_a_phone_picture_is_named_as_what_it_is(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(MediaError, match="HEIC or AVIF picture, which is not read; save it as JPEG"):
        kind_of(tmp_path / "IMG_1.HEIC")
