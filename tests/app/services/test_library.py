"""What is kept, for how long, and that nothing of others is touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from app.services.conversation import ImagePart
from app.services.library import KEEP_S, Library
from core.errors import MediaError


@pytest.fixture(params=[True, False], ids=["temporary", "given"])
def library(request, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = Library(None if request.param else str(tmp_path / "outputs"))
    yield made
    made.close()


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_results_expire_in_our_own_folder_only(library):
    old, fresh, foreign = library.new_path(".mp4"), library.new_path(".mp4"), library.folder / "notes.txt"
    for path in (old, fresh, foreign):
        path.write_bytes(b"x")
    age(old, KEEP_S + 60)
    age(fresh, KEEP_S - 600)
    age(foreign, 10 * KEEP_S)
    assert library.new_path(".mp4") not in (old, fresh)
    assert old.exists() is library.keeps_results, "a folder that was given is its owner's"
    assert fresh.exists()
    assert foreign.exists(), "no result of ours"


def test_uploads_expire_unless_they_are_used(library, tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    old, used, fresh = (Path(library.keep(ImagePart(str(tmp_path / "a.png"))).path) for _ in range(3))
    for path in (old, used):
        age(path, KEEP_S + 60)
    library.touch([str(used), "/nowhere/at/all.png", str(old.with_name("never.png"))])
    library.new_path(".mp4")
    assert not old.exists()
    assert not old.parent.exists()
    assert used.exists()
    assert fresh.exists()


def test_a_kept_file_outlives_the_upload_and_leaves_it_alone(library, tmp_path):
    upload = tmp_path / "heart.png"
    upload.write_bytes(b"picture")
    before = upload.stat()
    kept = Path(library.keep(ImagePart(str(upload))).path)
    assert kept.name == "heart.png"
    assert library.keep(ImagePart(str(kept))).path == str(kept), "it is ours already"
    assert (upload.stat().st_mtime_ns, upload.stat().st_nlink) == (before.st_mtime_ns, before.st_nlink)
    upload.unlink()
    assert kept.read_bytes() == b"picture"


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a.html", "a.html.png"),
        ("a", "a.png"),
        ("a.svg", "a.svg.png"),
        ("a.svgz", "a.svgz.png"),
        ("b.PNG", "b.PNG"),
    ],
)
def test_no_kept_file_is_served_as_a_page(library, tmp_path, name, kept):
    (tmp_path / name).write_bytes(b"<script>")
    assert Path(library.keep(ImagePart(str(tmp_path / name))).path).name == kept


def test_a_file_that_is_gone_is_named(library, tmp_path):
    with pytest.raises(MediaError, match=r"'gone\.png' could not be kept .*upload it again"):
        library.keep(ImagePart(str(tmp_path / "gone.png")))
    assert not list(library.uploads.iterdir())


def test_closing_removes_what_is_ours(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "a.png").write_bytes(b"picture")
    given, own, other = Library(str(tmp_path / "outputs")), Library(), Library()
    result = given.new_path(".mp4")
    result.write_bytes(b"clip")
    kept = [Path(library.keep(ImagePart(str(tmp_path / "a.png"))).path) for library in (given, own, other)]
    given.close()
    own.close()
    assert result.exists()
    assert (tmp_path / "a.png").exists()
    assert [path.exists() for path in kept] == [False, False, True]
    assert not own.folder.exists()
    other.close()
    assert not list((tmp_path / "temporary").iterdir())


def test_what_a_visitor_has_outlives_the_program_for_its_time(tmp_path):
    (tmp_path / "a.png").write_bytes(b"picture")
    state = tmp_path / "state"
    first = Library(state=state, keep_s=100)
    results = [first.new_path(".mp4") for _ in range(2)]
    for path in results:
        path.write_bytes(b"clip")
    kept = Path(first.keep(ImagePart(str(tmp_path / "a.png"))).path)
    first.close()
    age(results[0], 160)
    second = Library(state=state, keep_s=100)
    assert [path.exists() for path in results] == [False, True]
    assert kept.exists() and second.keep(ImagePart(str(kept))).path == str(kept)
    second.close()
