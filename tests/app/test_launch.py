"""The whole program, started as a person starts it, in surroundings that used to end the start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from app.launch import run
from app.settings import Settings
from core.weights import bundled_checkpoint

ROOT = Path(__file__).resolve().parents[2]
PICTURE = bundled_checkpoint().parents[1] / "media" / "heart.png"
SOCKS = {
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "all_proxy": "socks4://127.0.0.1:9",
    "SSL_CERT_FILE": "/nonexistent",
}
HTTP = {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": "example.org"}
EMPTY = {
    "HAPLO_PORT": "",
    "HAPLO_DTYPE": " ",
    "GRADIO_SERVER_PORT": "wrong",
    "GRADIO_NUM_PORTS": "",
    "IMAGEIO_FFMPEG_EXE": "",
}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams are closed by a POSIX shell")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(arguments: str, **variables: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["sh", "-c", f'exec "{sys.executable}" app.py {arguments}'], cwd=ROOT, env={**os.environ, **variables}
    )


def wait_for(client: httpx.Client, process: subprocess.Popen, url: str) -> None:
    while process.poll() is None:  # the test's own time limit ends a program that neither answers nor ends
        try:
            if client.get(url).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"the program ended with {process.returncode}")


def upload(client: httpx.Client, url: str) -> str:
    with PICTURE.open("rb") as file:
        path = client.post(f"{url}/gradio_api/upload", files={"files": file}).json()[0]
    return f"{url}/gradio_api/file={path}"


def test_two_programs_in_hostile_surroundings_leave_each_other_alone(tmp_path):
    """Proxies nobody can use, no streams, empty variables, one folder for both: one ends alone."""
    ports = free_port(), free_port()
    common = {"GRADIO_TEMP_DIR": str(tmp_path), "HAPLO_DEVICE": "cpu", **EMPTY}
    processes = [
        start(f"--port {ports[0]} >&- 2>&- <&-", **common, **SOCKS),
        start(
            f"--port {ports[1]} --host localhost >&-", **common, **HTTP, PYTHONIOENCODING="ascii", LC_ALL="C"
        ),
    ]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    try:
        with httpx.Client(trust_env=False, timeout=60) as client:
            for process, url in zip(processes, urls, strict=True):
                wait_for(client, process, url)
            files = [upload(client, url) for url in urls]
            assert [client.get(file).content for file in files] == [PICTURE.read_bytes()] * 2
            processes[1].send_signal(signal.SIGTERM)
            assert processes[1].wait(timeout=120) == 0
            assert client.get(files[0]).content == PICTURE.read_bytes()
        processes[0].send_signal(signal.SIGINT)
        assert processes[0].wait(timeout=120) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert list(tmp_path.iterdir()) == []


def test_all_ipv6_addresses(tmp_path):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = free_port()
    process = start(f"--port {port} --host [::]", GRADIO_TEMP_DIR=str(tmp_path), HAPLO_DEVICE="cpu")
    try:
        with httpx.Client(trust_env=False, timeout=60) as client:
            wait_for(client, process, f"http://[::1]:{port}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("checkpoint", ["{folder}", "{file}", "{folder}/none", "~nosuchuser/x", "x" * 300])
def test_a_start_that_fails_leaves_everything_as_it_was(tmp_path, checkpoint, capsys, monkeypatch):
    folder, file, place = tmp_path / "empty", tmp_path / "file", tmp_path / "place"
    folder.mkdir()
    place.mkdir()
    file.touch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(place))
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    before = dict(os.environ)
    assert run(Settings(checkpoint=checkpoint.format(folder=folder, file=file), device="cpu", port=0)) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error: ")] == said[-1:]
    assert len(said[-1]) < 400
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert os.environ["GRADIO_TEMP_DIR"] == before["GRADIO_TEMP_DIR"] and list(place.iterdir()) == []
