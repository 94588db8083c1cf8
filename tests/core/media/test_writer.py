"""Results on disk: they play, they carry their recipe, and whatever went wrong is said as it is."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import MediaError
from core.media import check_encoder, check_opencv, write_clip, write_image, writer
from core.media.encoder import encoder_path
from core.media.writer import recipe_text
from core.text import whole_text

FRAMES = np.random.default_rng(1).integers(0, 255, (9, 32, 32, 3), np.uint8)
WRITE = "import numpy as np; from core.media import *; black = np.zeros((1, 32, 32, 3), np.uint8); "
POSIX = pytest.mark.skipif(os.name == "nt", reason="needs a shell script or a limit of POSIX")


def recipe_of(path: Path) -> dict:
    """The recipe in an MP4's comment tag."""
    data = path.read_bytes()
    at = data.index(b"\xa9cmt")
    return json.loads(data[at + 20 : at + 4 + int.from_bytes(data[at + 4 : at + 8], "big")].decode("utf-8"))


def test_written_clips_play_everywhere(tmp_path):
    clip = write_clip(FRAMES, tmp_path / "clip.mp4", fps=8, recipe={"prompt": "gräy"})
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "fast start"
    assert b"avc1" in data and "gräy".encode() in data
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    capture = cv2.VideoCapture(str(clip))
    assert capture.get(cv2.CAP_PROP_FPS) == 8 and int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 9
    assert capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT) == cv2.VideoWriter.fourcc("I", "4", "2", "0")


def test_writing_twice_gives_the_same_bytes(tmp_path):
    first, second = write_clip(FRAMES, tmp_path / "1.mp4"), write_clip(FRAMES, tmp_path / "2.mp4")
    assert first.read_bytes() == second.read_bytes()


def failed(path: Path, expected: str) -> None:
    with pytest.raises(MediaError, match=expected) as caught:
        write_clip(FRAMES.repeat(8, axis=0), path)  # more than a pipe holds
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder.mp4").mkdir()
    failed(tmp_path / "file" / "clip.mp4", "a file stands where its folder should be")
    failed(tmp_path / "folder.mp4", "a folder of that name is in its place")
    failed(tmp_path / ("x" * 300 + ".mp4"), "the name is too long")
    with pytest.raises(MediaError, match="a file stands where its folder should be"):
        write_image(FRAMES[0], tmp_path / "file" / "picture.png")
    write_clip(FRAMES, tmp_path / ("x" * 240 + ".mp4"))
    assert not list(tmp_path.glob("*.part")), "nothing half is left"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is closed to an administrator")
def test_a_closed_folder(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    failed(tmp_path / "closed" / "clip.mp4", "it is closed to this program")


SCRIPTS = {
    "full": ("cat > /dev/null; echo 'x.mp4: No space left on device' >&2; exit 228", "the disk is full"),
    "quota": ("cat > /dev/null; echo 'Disk quota exceeded' >&2; exit 1", "the disk is full"),
    "readonly": ("echo 'x.mp4: Read-only file system' >&2; exit 1", "it is read-only"),
    "plain": (
        "echo \"Unknown encoder 'libx264'\" >&2; exit 1",
        "no H.264 encoder .* unset IMAGEIO_FFMPEG_EXE",
    ),
    "killed": ("kill -9 $$", "ended from outside .SIGKILL"),
    "silent": ("exit 3", "ended with status 3; check IMAGEIO_FFMPEG_EXE"),
    "noisy": ("cat > /dev/null; head -c 300000 /dev/zero | tr '\\0' e >&2; exit 1", "ended with status 1"),
    "talks before it reads": (
        "head -c 300000 /dev/zero | tr '\\0' e >&2; cat > /dev/null; exit 1",
        "ended with status 1",
    ),
    "foreign letters": ("printf '\\377 voll' >&2; exit 1", "ended with status 1 .\ufffd voll"),
    "liar": ("cat > /dev/null; exit 0", "does not play"),
}


@POSIX
@pytest.mark.parametrize("name", SCRIPTS)
def test_how_ffmpeg_ended(name, tmp_path, monkeypatch):
    script, expected = SCRIPTS[name]
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    (tmp_path / "out").mkdir()
    failed(tmp_path / "out" / "clip.mp4", expected)
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(MediaError, match="wrote no MP4" if name == "liar" else expected):
        check_encoder()


@POSIX
def test_an_ffmpeg_that_never_ends(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\nexec sleep 300\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    monkeypatch.setattr(writer, "ENCODE_S", 0.5)
    (tmp_path / "out").mkdir()
    failed(tmp_path / "out" / "clip.mp4", "does not answer; check IMAGEIO_FFMPEG_EXE")
    assert not list((tmp_path / "out").iterdir())


@POSIX
def test_a_file_cut_off_under_ffmpegs_hands(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    cut = 'head -c 1500 "$last" > "$last.cut"; cat "$last.cut" > "$last"; rm "$last.cut"'
    cut = f"for last; do true; done; {cut}"
    program.write_text(f'#!/bin/sh\n"{encoder_path()}" "$@"\n{cut}\n')
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    failed(tmp_path / "clip.mp4", "does not play")


@POSIX
def test_a_limit_on_file_sizes(tmp_path):
    code = (
        "import resource, numpy as np\n"
        "from core.media import write_clip, write_image\n"
        "from core.errors import MediaError\n"
        "noise = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "for write, what in ((write_clip, noise), (write_image, noise[0])):\n"
        f"    try: write(what, {str(tmp_path / 'result')!r})\n"
        "    except MediaError as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.count("a limit on the size of files") == 2
    assert not list(tmp_path.iterdir())


def test_programs_that_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "gone"))
    for asks in (check_encoder, lambda: write_clip(FRAMES, tmp_path / "clip.mp4")):
        with pytest.raises(MediaError, match=r"IMAGEIO_FFMPEG_EXE names '.*gone', which does not exist"):
            asks()
    (tmp_path / "text").write_text("no program")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "text"))
    if os.name != "nt":
        with pytest.raises(MediaError, match="which cannot be run"):
            check_encoder()
        (tmp_path / "text").chmod(0o755)
        with pytest.raises(MediaError, match="cannot be run"):
            check_encoder()
        failed(tmp_path / "clip.mp4", "cannot be run")


def test_a_wrong_variable_of_moviepy_does_not_matter(tmp_path):
    code = f"{WRITE}check_encoder(); write_clip(black, {str(tmp_path / 'a.mp4')!r})"
    wrong = {**os.environ, "FFMPEG_BINARY": "/nowhere/ffmpeg", "FFPLAY_BINARY": "/nowhere/ffplay"}
    subprocess.run([sys.executable, "-c", code], env=wrong, check=True, capture_output=True)
    assert (tmp_path / "a.mp4").stat().st_size > 0


def test_a_right_variable_of_moviepy_counts(tmp_path, monkeypatch):
    copy = Path(shutil.copy(encoder_path(), tmp_path / "own-ffmpeg"))
    monkeypatch.setenv("FFMPEG_BINARY", str(copy))
    assert encoder_path() == str(copy)
    check_encoder()


def test_any_letters_under_any_locale(tmp_path):
    code = f"{WRITE}write_clip(black, {str(tmp_path / 'a.mp4')!r}, recipe={{'prompt': '\\u732b \\u00e4'}})"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code], env=plain, check=True)
    assert recipe_of(tmp_path / "a.mp4") == {"prompt": "猫 ä"}


anything = st.text(st.characters(exclude_categories=()), max_size=30)


@given(anything)
@settings(max_examples=300, deadline=None)
def test_any_words_survive_in_a_recipe(words):
    joined = words.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    assert json.loads(recipe_text({"prompt": words}).encode("utf-8")) == {"prompt": joined}
    whole = whole_text(words)
    assert whole.encode("utf-8").decode("utf-8") == whole == whole_text(whole)


@pytest.mark.parametrize(
    "words", ["\ud83d half", "a\0b\x1b[31m", "= ; # \\ \n end\\", "'\"%d $HOME", "猫" * 40_000]
)
def test_recipes_are_read_back_from_files(words, tmp_path):
    recipe = {"prompt": words, "seed": 3}
    assert recipe_of(write_clip(FRAMES[:1], tmp_path / "a.mp4", recipe=recipe)) == recipe
    with Image.open(write_image(FRAMES[0], tmp_path / "a.png", recipe)) as image:
        assert json.loads(image.text["comment"]) == recipe


def test_opencv_without_a_system_library(tmp_path):
    check_opencv()
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
    )
    code = (
        "from core.media import check_opencv\ntry: check_opencv()\nexcept ValueError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "libGL.so.1" in ended.stdout and "apt-get install libgl1 libglib2.0-0" in ended.stdout
