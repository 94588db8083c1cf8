"""The page through gradio_client: answers, clips, errors, and what stays closed."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from core.weights import bundled_checkpoint

MEDIA = bundled_checkpoint().parents[1] / "media"


@pytest.fixture
def client(served):
    return Client(served[0], verbose=False)


def test_ask_about_a_picture(client, bundled):
    said = client.predict("What colour is it?", [handle_file(MEDIA / "heart.png")], api_name="/images_answer")
    message = {
        "role": "user",
        "content": [{"type": "image", "path": MEDIA / "heart.png"}, {"type": "text", "text": "What colour is it?"}],
    }
    assert said == "".join(bundled.chat([message]))


def test_either_tab_takes_either_medium(client):
    for name in ("/images_answer", "/videos_answer"):
        files = [handle_file(MEDIA / "circle_left.mp4"), handle_file(MEDIA / "star.png")]
        assert client.predict("What do you see?", files, api_name=name).strip()


def test_make_a_clip(client):
    path = client.predict("a red circle", num_inference_steps=2, seed=5, height=64, width=64, api_name="/text_to_video")
    assert path.endswith(".mp4")
    same = client.predict("a red circle", num_inference_steps=2, seed=5, height=64, width=64, api_name="/text_to_video")
    assert path != same
    with open(path, "rb") as first, open(same, "rb") as second:
        assert first.read() == second.read()


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [("bad.png", b"not a picture", "not a readable image"), ("bad.mp4", b"", "empty"), ("notes.txt", b"hello", "neither")],
)
def test_bad_files_then_a_good_one(client, tmp_path, name, data, expected):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AppError, match=expected):
        client.predict("What is this?", [handle_file(tmp_path / name)], api_name="/images_answer")
    assert client.predict("What is this?", [handle_file(MEDIA / "ring.png")], api_name="/images_answer").strip()


def test_bad_requests(client):
    with pytest.raises(AppError, match="nearest is 96"):
        client.predict("a red circle", height=100, api_name="/text_to_video")
    with pytest.raises(AppError, match="empty"):
        client.predict(" ", api_name="/text_to_video")
    with pytest.raises(AppError, match="type a question"):
        client.predict("", [], api_name="/videos_answer")


def test_only_the_three_public_functions_are_offered(client):
    info = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(info) == {"/images_answer", "/videos_answer", "/text_to_video"}


@pytest.mark.parametrize("path", ["process_recording", "file=https://example.org/", "deep_link"])
def test_closed_routes(served, path):
    request = urllib.request.Request(f"{served[0]}gradio_api/{path}", method="POST" if "file" not in path else "GET", data=None)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 403
    caught.value.close()


def test_files_of_the_machine_stay_closed(served):
    for path in ("/etc/passwd", "app.py", "../app.py"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{served[0]}gradio_api/file={path}", timeout=10)
        assert caught.value.code in (403, 404)
        caught.value.close()


def test_oversized_bodies_are_refused(served):
    body = json.dumps({"data": ["x" * (5 * 2**20)]}).encode()
    request = urllib.request.Request(f"{served[0]}gradio_api/queue/join", data=body, headers={"Content-Type": "application/json"})
    with pytest.raises((urllib.error.HTTPError, urllib.error.URLError, ConnectionError)) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert getattr(caught.value, "code", 413) == 413
