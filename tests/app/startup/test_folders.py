"""Folders that are made, written to and left as they were."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time

import pytest

from app.startup.folders import ABANDONED_S, OwnFolder, StateFolder, check_folder
from core.errors import HaploOmniError
from tests.app.startup.helpers import one_sentence


@pytest.mark.parametrize(
    "name", ["{file}", "{file}/below", "{file}/far/below", "{new}/" + "x" * 300, "a\0b", "~nosuchuser/x"]
)
def test_folders_that_cannot_be(tmp_path, a_file, name):
    with pytest.raises(HaploOmniError, match="--outputs") as caught:
        check_folder(name.format(file=a_file, new=tmp_path / "new"), "--outputs")
    assert one_sentence(str(caught.value)) and len(str(caught.value)) < 300
    assert list(tmp_path.iterdir()) == [a_file] and a_file.read_text() == "kept"


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(HaploOmniError, match="read-only file system"):
        check_folder(str(tmp_path / "a" / "b"), "--outputs")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_and_left_empty(tmp_path):
    folder = check_folder(str(tmp_path / "a" / "ü b"), "--outputs")
    assert folder == (tmp_path / "a" / "ü b").resolve()
    assert list(folder.iterdir()) == []


def test_every_program_has_a_folder_of_its_own(tmp_path):
    first, second = {"GRADIO_TEMP_DIR": str(tmp_path)}, {"GRADIO_TEMP_DIR": str(tmp_path)}
    one, two = OwnFolder(first), OwnFolder(second)
    assert one.path != two.path
    assert first["GRADIO_TEMP_DIR"] == str(one.path) and one.path.parent == tmp_path.resolve()
    if os.name == "posix":
        assert stat.S_IMODE(one.path.stat().st_mode) == 0o700
    for folder in (one, two):
        (folder.path / "upload").mkdir()
        (folder.path / "upload" / "heart.png").write_text("picture")
    one.remove()
    assert not one.path.exists() and first == {"GRADIO_TEMP_DIR": str(tmp_path)}
    assert (two.path / "upload" / "heart.png").read_text() == "picture"
    two.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_systems_folder_is_used_when_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environ: dict[str, str] = {}
    own = OwnFolder(environ)
    assert own.path.parent == tmp_path.resolve()
    own.remove()
    assert environ == {} and list(tmp_path.iterdir()) == []


def test_no_place_for_temporary_files(a_file, monkeypatch):
    with pytest.raises(HaploOmniError, match="GRADIO_TEMP_DIR"):
        OwnFolder({"GRADIO_TEMP_DIR": str(a_file)})

    def nowhere():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(HaploOmniError, match="TMPDIR"):
        OwnFolder({})


def test_what_outlives_a_program_is_found_again_by_the_port_and_belongs_to_one(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    first = StateFolder(None, 7000, environ)
    assert first.path is not None and first.path.is_relative_to(tmp_path)
    if os.name == "posix":
        assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
    assert StateFolder(None, 7000, environ).path is None, "another program has it"
    other = StateFolder(None, 7001, environ)
    assert other.path not in (None, first.path)
    first.release()
    again = StateFolder(None, 7000, environ)
    assert again.path == first.path
    again.release()
    other.release()


def test_without_a_place_nothing_outlives_and_the_program_starts(tmp_path, a_file):
    assert StateFolder("none", 7000, {"XDG_STATE_HOME": str(tmp_path)}).path is None
    assert StateFolder(None, 7000, {"XDG_STATE_HOME": str(a_file)}).path is None
    with pytest.raises(HaploOmniError, match="--state"):
        StateFolder(str(a_file), 7000, {})
    assert list(tmp_path.iterdir()) == [a_file]


def test_what_other_ports_left_behind_goes_after_a_day(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    running, old, fresh = (StateFolder(None, port, environ) for port in (7000, 7001, 7002))
    for state in (running, old, fresh):
        (state.path / "results").mkdir()
        (state.path / "results" / "clip.mp4").write_bytes(b"clip")
    old.release()
    fresh.release()
    for state in (running, old):
        then = time.time() - ABANDONED_S - 60
        for path in (*state.path.rglob("*"), state.path):
            os.utime(path, (then, then))
    StateFolder(None, 7003, environ).release()
    kept = [(state.path / "results" / "clip.mp4").exists() for state in (running, old, fresh)]
    assert kept == [True, False, True]
    running.release()
