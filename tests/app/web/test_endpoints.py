"""The page through gradio_client: answers, clips, errors, and what stays closed."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from app.web.endpoints import uploaded
from core.errors import MediaError
from core.weights import bundled_checkpoint

MEDIA = bundled_checkpoint().parents[1] / "media"


@pytest.fixture
def client(served):
    return Client(served[0], verbose=False)


def test_ask_about_a_picture(client, bundled):
    said = client.predict("What colour is it?", [handle_file(MEDIA / "heart.png")], api_name="/images_answer")
    message = {
        "role": "user",
        "content": [
            {"type": "image", "path": MEDIA / "heart.png"},
            {"type": "text", "text": "What colour is it?"},
        ],
    }
    assert said == "".join(bundled.chat([message]))


def test_the_engine_knows_whose_job_it_is(served, monkeypatch):
    engine = served[1]
    submit = engine.submit
    owners = []

    def watched(*given, owner, **named):
        owners.append(owner)
        return submit(*given, owner=owner, **named)

    monkeypatch.setattr(engine, "submit", watched)
    for client in (Client(served[0], verbose=False), Client(served[0], verbose=False)):
        for _ in range(2):
            client.predict("Who are you?", [], api_name="/images_answer")
    ada, again, ben, _ = owners
    assert ada and ada == again
    assert ben and ben != ada


def test_either_tab_takes_either_medium(client):
    for name in ("/images_answer", "/videos_answer"):
        files = [handle_file(MEDIA / "circle_left.mp4"), handle_file(MEDIA / "star.png")]
        assert client.predict("What do you see?", files, api_name=name).strip()


def test_make_a_clip(client):
    path = client.predict(
        "a red circle", num_inference_steps=2, seed=5, height=64, width=64, api_name="/text_to_video"
    )
    assert path.endswith(".mp4")
    same = client.predict(
        "a red circle", num_inference_steps=2, seed=5, height=64, width=64, api_name="/text_to_video"
    )
    assert path != same
    with open(path, "rb") as first, open(same, "rb") as second:
        assert first.read() == second.read()


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("bad.png", b"not a picture", "not a readable image"),
        ("bad.mp4", b"", "empty"),
        ("notes.txt", b"hello", "neither"),
    ],
)
def test_bad_files_then_a_good_one(client, tmp_path, name, data, expected):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AppError, match=expected):
        client.predict("What is this?", [handle_file(tmp_path / name)], api_name="/images_answer")
    assert client.predict(
        "What is this?", [handle_file(MEDIA / "ring.png")], api_name="/images_answer"
    ).strip()


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
    request = urllib.request.Request(
        f"{served[0]}gradio_api/{path}", method="POST" if "file" not in path else "GET", data=None
    )
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
    request = urllib.request.Request(
        f"{served[0]}gradio_api/queue/join", data=body, headers={"Content-Type": "application/json"}
    )
    with pytest.raises((urllib.error.HTTPError, urllib.error.URLError, ConnectionError)) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert getattr(caught.value, "code", 413) == 413


def test_the_page_is_given_without_copying_the_model(served, monkeypatch):
    def copied(*_):
        raise AssertionError("a weight was copied")

    monkeypatch.setattr("torch.nn.Parameter.__deepcopy__", copied)
    for route in ("", "config"):
        with urllib.request.urlopen(f"{served[0]}{route}", timeout=30) as answer:
            assert answer.status == 200


def post(url: str, body: object) -> dict:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def called(url: str, name: str, data: list) -> tuple[str, object]:
    """A function called as any program can, with anything: ("complete" or "error", what came)."""
    event = post(f"{url}gradio_api/call/{name}", {"data": data})["event_id"]
    with urllib.request.urlopen(f"{url}gradio_api/call/{name}/{event}", timeout=120) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith(("event:", "data:"))]
    last, said = lines[-2:]
    return last.removeprefix("event: "), json.loads(said.removeprefix("data: "))


def upload(url: str, path, name: str) -> str:
    """Upload a file under a name; its path in the cache."""
    edge = "----edge"
    head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = head + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{url}gradio_api/upload", data=body, headers=kind), timeout=30
    ) as answer:
        return json.load(answer)[0]


@pytest.mark.parametrize("question", ["who are you \ud83d ?", "\ude00", "a\ud83d\ude00b \ud83d"])
def test_text_cut_in_a_character_is_answered(served, question):
    kind, said = called(served[0], "images_answer", [question, [], 8, 0])
    assert kind == "complete"
    assert said[0].strip()


def test_a_prompt_cut_in_a_character_makes_a_clip(served):
    kind, said = called(served[0], "text_to_video", ["a red \ud83d circle", "\ud83d", 64, 64, 1, 1, 4, 1])
    assert kind == "complete"
    assert said[0].endswith(".png")


NOT_NUMBERS = [
    "many",
    [],
    {},
    True,
    float("nan"),
    float("inf"),
    float("-inf"),
    -5,
    10**30,
    10**400,
    1e300,
    2.5,
]


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("place", range(2, 8))
def test_whatever_a_program_sends_for_a_clip_gets_a_sentence(served, place, value):
    data: list = ["a red circle", "", 64, 64, 1, 1, 4, 1]
    data[place] = value
    kind, said = called(served[0], "text_to_video", data)
    if kind == "complete":
        assert (place, value) == (6, 2.5), "the one number among them that can be"
    else:
        assert "unexpected" not in said["error"]
        assert said["error"].endswith(".")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *((0, value) for value in (None, 5, [], {"text": "x"}, "", "x" * 4001)),
        *(
            (1, value)
            for value in (
                "x",
                5,
                [5],
                [None],
                [{}],
                [{"path": None}],
                [{"path": "/etc/passwd"}],
                [{"path": "\ud83d.png"}],
            )
        ),
        *((2, value) for value in NOT_NUMBERS),
        *((3, value) for value in NOT_NUMBERS if value != 2.5),
    ],
    ids=lambda value: str(value)[:12].encode("ascii", "replace").decode(),
)
def test_whatever_a_program_sends_with_a_question_gets_a_sentence(served, place, value):
    data: list = ["Who are you?", [], 8, 0.0]
    data[place] = value
    kind, said = called(served[0], "images_answer", data)
    assert kind == "error"
    assert said["error"].endswith((".", "?"))
    assert "unexpected" not in said["error"]


def test_what_is_left_out_is_the_usual(served):
    kind, said = called(served[0], "images_answer", ["Who are you?", None, None, None])
    assert kind == "complete"
    assert said[0].strip()
    kind, said = called(served[0], "text_to_video", ["a red circle", None, 64, 64, 1, 1, None, None])
    assert kind == "complete"


@pytest.mark.parametrize("sent", range(5))
def test_values_left_out_at_the_end_are_the_usual(served, sent):
    kind, said = called(served[0], "images_answer", ["Who are you?", [], 8, 0, "one too many"][:sent])
    if sent:
        assert kind == "complete"
        assert said[0].strip()
    else:
        assert kind == "error"
        assert "type a question" in said["error"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "/dev/zero",
        "a\0b",
        "x" * 5000,
        "\ud83d",
        "data:image/png;base64,AA",
        "http://127.0.0.1:1/x.png",
        "../x.png",
    ],
    ids=lambda path: path[:12].encode("ascii", "replace").decode(),
)
def test_a_file_that_the_framework_refuses_gets_a_sentence(served, path):
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    kind, said = called(served[0], "images_answer", ["What is this?", [file], 8, 0])
    assert kind == "error"
    assert "upload" in said["error"]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("call/nosuch", {"data": []}),
        ("call/v2/text_to_video", {"prompt": "a red circle", "nosuch": 1}),
        ("run/predict", {"data": [], "fn_index": 999}),
        ("run/predict", {"data": [], "fn_index": -1}),
    ],
)
def test_a_function_or_an_argument_that_does_not_exist_gets_a_sentence(served, route, body):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(f"{served[0]}gradio_api/{route}", body)
    assert caught.value.code == 400
    assert "cannot be answered" in json.load(caught.value)["detail"]


@pytest.mark.parametrize("name", ["images_answer", "text_to_video"])
def test_the_work_of_programs_that_are_gone_ends(served, monkeypatch, name):
    url, engine = served

    def endless(*_, **__):
        while True:
            time.sleep(0.05)
            yield "word "

    monkeypatch.setattr(engine.omni, "chat", endless)
    monkeypatch.setattr("app.services.video.VideoService.work", endless)
    data = {
        "images_answer": ["Who are you?", [], 8, 0],
        "text_to_video": ["a red circle", "", 64, 64, 1, 1, 1, 1],
    }[name]
    host = urllib.parse.urlsplit(url)
    for _ in range(3):
        event = post(f"{url}gradio_api/call/{name}", {"data": data})["event_id"]
        with socket.create_connection((host.hostname, host.port)) as program:
            program.sendall(f"GET /gradio_api/call/{name}/{event} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(0.3)
    for _ in range(600):
        if not engine.busy and not engine.waiting:
            break
        time.sleep(0.1)
    assert not engine.busy
    assert engine.waiting == 0


def test_a_program_cannot_ask_about_a_file_of_the_machine(served, tmp_path):
    private = tmp_path / "private.png"
    private.write_bytes((MEDIA / "heart.png").read_bytes())
    kind, said = called(served[0], "images_answer", ["What colour is it?", [{"path": str(private)}], 8, 0])
    assert kind == "error"
    assert "upload it first" in said["error"]


@pytest.mark.parametrize(
    "name", ["component_server_diagram.png", "deep_link.png", "process_recording.png", "file=http.png"]
)
def test_uploads_may_be_called_what_they_like(served, name):
    path = upload(served[0], MEDIA / "heart.png", name)
    with urllib.request.urlopen(
        f"{served[0]}gradio_api/file={urllib.parse.quote(path)}", timeout=10
    ) as answer:
        assert answer.read() == (MEDIA / "heart.png").read_bytes()


def test_the_estimate_answers_whatever_a_browser_sends(served):
    """The raw request, past every check of the framework."""
    with urllib.request.urlopen(f"{served[0]}config", timeout=10) as answer:
        config = json.load(answer)
    (line,) = {
        part["id"] for part in config["components"] if part["props"].get("elem_id") == "video-expected"
    }
    estimate = next(one["id"] for one in config["dependencies"] if line in one["outputs"])
    good = [9, 64, 64, 2, 4, 1, True, "a red circle", ""]
    for place in range(len(good)):
        for value in [None, "many", [], -5, 7, 1e300, 2.5, *good]:
            form = good.copy()
            form[place] = value
            said = post(
                f"{served[0]}gradio_api/run/predict",
                {"fn_index": estimate, "data": form, "session_hash": "x"},
            )["data"][0]
            assert said.startswith('<p class="'), (place, value)
            assert "unexpected" not in said, (place, value)


@pytest.mark.parametrize(
    "files",
    [5, "text", [None], ["/etc/passwd"], [{"path": 3}], [{"path": "/etc/passwd"}], [{"path": "a\0b"}], [{}]],
)
def test_programs_reach_only_what_they_uploaded(tmp_path, files):
    with pytest.raises(MediaError):
        uploaded(files, str(tmp_path))


def test_what_programs_uploaded_is_taken(tmp_path):
    inside = str(tmp_path / "a.png")
    assert uploaded([{"path": inside}], str(tmp_path)) == [inside]
    assert uploaded(None, str(tmp_path)) == uploaded([], str(tmp_path)) == []
    with pytest.raises(MediaError):
        uploaded([{"path": str(tmp_path / ".." / "a.png")}], str(tmp_path))
