"""Clips from people: read whole whatever they declare, frames are chosen by time, faults have sentences."""

from __future__ import annotations

import math
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import MediaError
from core.media import probe_video, read_video, sampled_frames, write_clip
from core.media.timing import frame_times, spread
from tests.core.media.files import STILL_FIRST, encoded, film, run


@pytest.fixture
def clip(tmp_path):
    """A clip of 17 frames, each a gray of its own."""
    frames = np.stack([np.full((32, 48, 3), 10 + 14 * i, np.uint8) for i in range(17)])
    return write_clip(frames, tmp_path / "clip.mp4", fps=8, recipe={"prompt": "gräy"})


def grays(frames: np.ndarray) -> list[int]:
    return [round((int(f.mean()) - 10) / 14) for f in frames]


def test_frames_are_spread_evenly(clip):
    assert probe_video(clip).duration_s == pytest.approx(2.0, abs=0.01)
    assert grays(read_video(clip, 5)) == [0, 4, 8, 12, 16]
    assert grays(read_video(clip, 3, start_s=0.5, end_s=1.0)) == [4, 6, 8]
    assert len(read_video(clip, 64)) == 17
    assert grays(read_video(clip, 1)) == [0]
    assert grays(read_video(clip, 4, start_s=0.51, end_s=0.6)) == [4], (
        "what is on the screen between two frames"
    )
    with pytest.raises(MediaError, match="holds no frame"):
        read_video(clip, 4, start_s=9)
    with pytest.raises(MediaError, match="choose 1 to"):
        read_video(clip, 0)


# -- whole clips


@pytest.mark.parametrize("name", ["a.webm", "a.mkv", "a.mp4", "a.mov", "a.ts"])
def test_a_variable_rate_is_read_whole_and_by_time(name, tmp_path):
    codec = "libvpx" if name.endswith("webm") else "libx264"
    found = probe_video(film(tmp_path / name, *STILL_FIRST, "-c:v", codec, seconds=10))
    assert found.duration_s == pytest.approx(9.96, abs=0.1) and 25 < len(found.times_s) < 50
    seen = [found.times_s[i] for i in sampled_frames(found, name, 4)]
    assert seen[0] == 0 and seen[-1] == found.duration_s
    wanted = np.linspace(0, found.duration_s, 4)
    assert np.abs(np.array(seen) - wanted).max() <= 1.01, "frames are two seconds apart at most"
    assert len(read_video(tmp_path / name, 4)) == 4


def test_hidden_frames_of_a_trimmed_clip_are_no_loss(tmp_path):
    film(tmp_path / "whole.mp4", "-c:v", "libx264", "-g", "250", seconds=10)
    run("-ss", "4", "-i", str(tmp_path / "whole.mp4"), "-c", "copy", str(tmp_path / "trim.mp4"))
    found = probe_video(tmp_path / "trim.mp4")
    assert len(found.times_s) == 150 and found.duration_s == pytest.approx(5.96, abs=0.05)


CONTAINERS = {
    "late.mkv": ("-c:v", "libx264", "-output_ts_offset", "100"),
    "late.mp4": ("-c:v", "libx264", "-output_ts_offset", "100", "-avoid_negative_ts", "disabled"),
    "pieces.mp4": ("-c:v", "libx264", "-movflags", "frag_keyframe+empty_moov", "-g", "25"),
    "backwards.avi": ("-c:v", "mpeg4", "-bf", "2"),
    "h264.avi": ("-c:v", "libx264", "-bf", "2"),
    "tv.ts": ("-c:v", "libx264"),
    "camera.m2ts": ("-c:v", "libx264", "-f", "mpegts", "-mpegts_m2ts_mode", "1"),
    "old.mpg": ("-c:v", "mpeg2video"),
    "phone.3gp": ("-c:v", "libx264"),
    "moves.gif": (),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_times_of_every_container(name, tmp_path):
    found = probe_video(film(tmp_path / name, *CONTAINERS[name]))
    assert len(found.times_s) == 100
    assert np.allclose(found.times_s, np.arange(100) / 25, atol=0.011)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_jump_of_the_stamps_is_no_hour(name, tmp_path):
    options = ("-vf", "setpts='PTS+if(gt(N,50),3600/TB,0)'", "-fps_mode", "passthrough")
    found = probe_video(
        film(tmp_path / name, *options, "-c:v", "libvpx" if name.endswith("webm") else "libx264")
    )
    assert len(found.times_s) >= 99 and found.duration_s == pytest.approx(3.96, abs=0.05)


def test_recordings_one_after_another(tmp_path):
    first = film(tmp_path / "1.ts", "-c:v", "libx264").read_bytes()
    later = film(tmp_path / "2.ts", "-c:v", "libx264", "-output_ts_offset", "5000").read_bytes()
    for name, data in {"same": first + first, "later": first + later, "earlier": later + first}.items():
        (tmp_path / f"{name}.ts").write_bytes(data)
        found = probe_video(tmp_path / f"{name}.ts")
        assert len(found.times_s) == 200 and found.duration_s == pytest.approx(7.96, abs=0.05), name


def declaring(avi: bytes, count: int) -> bytes:
    """An AVI whose two headers claim to hold ``count`` frames."""
    data = bytearray(avi)
    struct.pack_into("<I", data, data.index(b"avih") + 24, count)
    struct.pack_into("<I", data, data.index(b"strh") + 40, count)
    return bytes(data)


@pytest.mark.parametrize("declared", [0, 1, 7, 10**6])
def test_a_wrong_declared_count(declared, tmp_path):
    data = film(tmp_path / "a.avi", "-c:v", "mpeg4").read_bytes()
    (tmp_path / "b.avi").write_bytes(declaring(data, declared))
    assert len(probe_video(tmp_path / "b.avi").times_s) == 100


def test_one_frame(tmp_path):
    film(tmp_path / "one.mp4", "-frames:v", "1", "-c:v", "libx264")
    assert probe_video(tmp_path / "one.mp4").times_s == (0.0,)
    assert len(read_video(tmp_path / "one.mp4", 8)) == 1


# -- damaged and long clips


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4")]
)
def test_bytes_missing_at_the_end(name, codec, tmp_path):
    data = film(
        tmp_path / name, "-c:v", codec, *(("-movflags", "+faststart") if name.endswith("mp4") else ())
    ).read_bytes()
    (tmp_path / f"cut-{name}").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=r"cut-.* is incomplete: \d+% of the file are missing"):
        probe_video(tmp_path / f"cut-{name}")
    (tmp_path / f"nearly-{name}").write_bytes(data[: int(len(data) * 0.97)])
    assert len(probe_video(tmp_path / f"nearly-{name}").times_s) > 80


def test_frames_behind_a_damaged_part_are_read(tmp_path):
    data = bytearray(film(tmp_path / "a.mp4", "-c:v", "libx264", "-g", "25", seconds=8).read_bytes())
    middle = len(data) // 2
    for at in range(middle, middle + 400, 7):
        data[at] ^= 255
    (tmp_path / "b.mp4").write_bytes(data)
    found = probe_video(tmp_path / "b.mp4")
    assert found.duration_s == pytest.approx(7.96, abs=0.5)
    assert len(read_video(tmp_path / "b.mp4", 6)) == 6


@pytest.mark.parametrize(("name", "codec"), [("long.mp4", "libx264"), ("long.avi", "mpeg4")])
def test_a_long_clip_is_refused_by_what_is_decoded(name, codec, tmp_path):
    data = film(tmp_path / name, "-c:v", codec, seconds=1300, rate=1, size="32x32").read_bytes()
    with pytest.raises(MediaError, match="longer than 10 minutes"):
        probe_video(tmp_path / name)
    if name.endswith("avi"):  # one that claims to be short is not looked at behind the limit at once
        (tmp_path / name).write_bytes(declaring(data, 10))
        with pytest.raises(MediaError, match=r"too long|minutes long"):
            probe_video(tmp_path / name)


def clip_without_index(clip: bytes) -> bytes:
    """As a camera leaves it that lost power: the pictures, and no index behind them."""
    return clip[: clip.find(b"moov") - 4] + clip[clip.find(b"mdat") - 4 :] if b"moov" in clip else clip


def bad_videos(clip: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"no clip at all", "not a readable video"),
        "picture.mp4": (encoded("JPEG"), "not a readable video|no frame"),
        "cut.mp4": (clip[: len(clip) // 3], "incomplete"),
        "without_index.mp4": (clip_without_index(clip), "damaged, cut off or holds no picture"),
        "list.mp4": (b"ffconcat version 1.0\nfile clip.mp4\n", "not a readable video"),
        "stream.mp4": (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n",
            "not a readable video",
        ),
    }


@pytest.mark.parametrize("name", list(bad_videos(b"x" * 9)))
def test_bad_videos(name, clip, tmp_path):
    data, expected = bad_videos(clip.read_bytes())[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MediaError, match=expected) as caught:
        read_video(tmp_path / name, 4)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_oversized_video(monkeypatch, clip):
    monkeypatch.setattr("core.media.videos.MAX_VIDEO_BYTES", 100)
    with pytest.raises(MediaError, match="large"):
        probe_video(clip)
    monkeypatch.undo()
    monkeypatch.setattr("core.media.videos.MAX_DURATION_S", 1.0)
    with pytest.raises(MediaError, match=r"long|at most"):
        probe_video(clip)
    monkeypatch.setattr("core.media.videos.MAX_SIDE", 40)
    with pytest.raises(MediaError, match="pixels"):
        probe_video(clip)


def test_a_file_that_changed_is_walked_through_again(clip, tmp_path):
    assert len(probe_video(clip).times_s) == 17
    write_clip(np.zeros((5, 32, 48, 3), np.uint8), clip)
    assert len(probe_video(clip).times_s) == 5


# -- times


stamps = st.lists(
    st.one_of(st.floats(-1e6, 1e6), st.just(0.0), st.just(math.nan), st.just(math.inf)),
    min_size=1,
    max_size=40,
)


@given(stamps, st.sampled_from([0.0, 25.0, 1000.0, 90000.0, math.nan, -1.0, math.inf]))
@settings(max_examples=300, deadline=None)
def test_any_stamps_give_rising_times(stamps_s, declared_fps):
    times = frame_times(stamps_s, declared_fps)
    assert len(times) == len(stamps_s) and times[0] == 0
    assert all(later > earlier for earlier, later in pairwise(times))
    assert all(math.isfinite(time) for time in times)


def test_missing_and_repeated_stamps_are_filled_in():
    assert frame_times([5.0, 5.1, 5.1, 5.3, 0.0, 5.5, 0.0, 0.0], 90000) == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    )
    assert frame_times([0.0] * 4, 10.0) == pytest.approx([0, 0.1, 0.2, 0.3])
    for nonsense in (0.0, 1000.0, 90000.0, math.nan):
        assert frame_times([0.0] * 3, nonsense) == pytest.approx([0, 0.04, 0.08])


@given(
    st.integers(1, 400),
    st.integers(1, 64),
    st.sampled_from([8.0, 23.976, 25.0, 29.97, 30.0, 60.0]),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_a_constant_rate_is_sampled_as_the_released_program_does(length, count, rate, whole_milliseconds):
    times = [round(i / rate, 3) if whole_milliseconds else i / rate for i in range(length)]
    places = np.linspace(0, length - 1, min(count, length))
    assert spread(times, count, 0.0, times[-1]) == sorted({round(place) for place in places})


@given(st.lists(st.floats(0.02, 30), min_size=1, max_size=60), st.integers(2, 64))
@settings(max_examples=300, deadline=None)
def test_a_variable_rate_is_sampled_by_time(steps, count):
    times = np.concatenate([[0.0], np.cumsum(steps)])
    picks = spread(times, count, 0.0, times[-1])
    assert picks[0] == 0 and picks[-1] == len(times) - 1 and picks == sorted(set(picks))
    if np.ptp(steps) > 0.05:
        wanted = np.linspace(0, times[-1], min(count, len(times)))
        nearest = np.abs(times[:, None] - wanted).min(0)
        chosen = np.abs(times[picks][:, None] - wanted).min(0)
        assert np.allclose(chosen, nearest)


def test_a_part_in_which_nothing_moves_shows_what_is_on_the_screen():
    times = (0.0, 0.04, 0.08, 10.0, 10.04)
    assert spread(times, 4, 3.0, 5.0) == [2]
    assert spread(times, 3, 5.0, 10.04) == [2, 3, 4] or spread(times, 3, 5.0, 10.04) == [2, 4]
    assert spread(times, 4, 11.0, 12.0) == []
