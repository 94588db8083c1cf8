"""What a start may find around it: proxies, empty variables, closed streams, signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from app.startup.surroundings import OVERRULED, check_share_proxy, drop_empty_variables, reaching_itself
from core.errors import HaploOmniError

ROOT = Path(__file__).resolve().parents[3]
PROXIES = (
    "http://127.0.0.1:9",
    "socks5://127.0.0.1:9",
    "socks5h://u:p@127.0.0.1:9",
    "socks4://127.0.0.1:9",
    "http://[::bad",
    "ftp://x",
)


@pytest.fixture
def no_proxies(monkeypatch):
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    return monkeypatch


@pytest.fixture
def visits():
    """``visits(client, url)``: whether a request reaches ``visits.port``, as a page or as a proxy."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.5)

    def reached(client: httpx.Client, url: str) -> bool:
        asking = threading.Thread(target=ask, args=(client, url))
        asking.start()
        try:
            listener.accept()[0].close()
        except TimeoutError:
            return False
        finally:
            asking.join()
        return True

    def ask(client: httpx.Client, url: str) -> None:
        with suppress(httpx.HTTPError, OSError):
            client.get(url)

    reached.port = listener.getsockname()[1]
    yield reached
    listener.close()


@pytest.mark.parametrize("exceptions", [None, "", "localhost", "example.org"])
@pytest.mark.parametrize("url", PROXIES)
@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_the_page_is_reached_around_every_proxy(no_proxies, visits, name, url, exceptions):
    no_proxies.setenv(name, url)
    no_proxies.setenv("SSL_CERT_FILE", "/nonexistent")
    if exceptions is not None:
        no_proxies.setenv("no_proxy", exceptions)
    before = dict(os.environ)
    with reaching_itself(), httpx.Client() as client:
        assert all(visits(client, f"{scheme}://127.0.0.1:{visits.port}/") for scheme in ("http", "https"))
    assert dict(os.environ) == before


def test_what_fails_inside_leaves_the_environment_as_it_was(no_proxies):
    before = dict(os.environ)
    with pytest.raises(KeyError), reaching_itself():
        raise KeyError
    assert dict(os.environ) == before


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "fe80::1%eth0"])
def test_a_shared_page_is_reached_directly_and_the_world_by_proxy(no_proxies, visits, host):
    no_proxies.setenv("http_proxy", f"http://127.0.0.1:{visits.port}")
    no_proxies.setenv("no_proxy", "127.0.0.2")
    with reaching_itself(True, (host,)), httpx.Client() as client:
        assert not visits(client, f"http://[{host}]:1/" if ":" in host else f"http://{host}:1/")
        assert not visits(client, "http://127.0.0.2:1/")
        assert visits(client, "http://example.com/")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("socks5://127.0.0.1:9", "socksio"),
        ("socks4://127.0.0.1:9", "socks4"),
        ("ftp://x", "ftp"),
        ("127.0.0.1:9", None),
        ("http://[::bad", "no address"),
        ("://", "no address"),
        ("http://", "no address"),
        ("http://x:port", "no address"),
        ("x:99999", "no address"),
    ],
)
def test_a_proxy_that_sharing_cannot_use(no_proxies, url, expected):
    no_proxies.setenv("all_proxy", url)
    no_proxies.setattr("importlib.util.find_spec", lambda _name: None)
    if expected is None:
        assert check_share_proxy() is None
    else:
        with pytest.raises(HaploOmniError, match=expected):
            check_share_proxy()


def test_empty_variables_are_dropped_and_others_kept():
    kept = {"CUDA_VISIBLE_DEVICES": "", "HOME": "", "HF_HOME": "/x", "GRADIO_TEMP_DIR": "/y"}
    dropped = {
        "HF_HUB_DOWNLOAD_TIMEOUT": "",
        "IMAGEIO_FFMPEG_EXE": " ",
        "FFMPEG_BINARY": "",
        "HAPLO_PORT": "",
        "GRADIO_SHARE": "",
    }
    environ = {**kept, **dropped, **dict.fromkeys(OVERRULED, "wrong")}
    drop_empty_variables(environ)
    assert environ == kept


@pytest.mark.skipif(os.name != "posix", reason="streams are closed by a POSIX shell")
def test_an_opened_file_does_not_take_the_place_of_a_closed_stream(tmp_path):
    code = (
        "from app.startup.surroundings import ensure_streams; ensure_streams(); import os, sys\n"
        "print('ü €'); sys.stderr.write('ü')\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w'); file.write(str(file.fileno())); file.close()\n"
        "os.write(1, b'x')"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -c "$0" <&- >&- 2>&-', code], cwd=ROOT, check=False
    )
    assert done.returncode == 0
    assert int((tmp_path / "file").read_text()) > 2


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "waiting", "code"),
    [
        (signal.SIGTERM, False, 143),
        (signal.SIGINT, False, 130),
        (signal.SIGTERM, True, 0),
        (signal.SIGINT, True, 0),
    ],
)
def test_a_signal_ends_at_once_while_loading_and_in_good_order_later(tmp_path, number, waiting, code):
    busy = (
        "ending.wait()"
        if waiting
        else "exec('while True:\\n  try:\\n    time.sleep(60)\\n  except BaseException: pass')"
    )
    process = program_that_ends(tmp_path / "gone", waiting, busy)
    time.sleep(0.3)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == code and "Traceback" not in said
    assert (tmp_path / "gone").exists() is not waiting
    assert ("closed in good order" in said) is waiting


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_burst_of_signals_is_one(tmp_path, number):
    """A process group and make both pass a signal on: it meets its own handler, which must not wait."""
    for _ in range(5):
        process = program_that_ends(tmp_path / "gone", True, "ending.wait()")
        for _ in range(50):
            process.send_signal(number)
        said = process.communicate(timeout=60)[0]
        assert process.returncode == 0 and "closed in good order" in said


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_second_signal_ends_at_once(tmp_path):
    process = program_that_ends(
        tmp_path / "gone", True, "ending.wait(); print('up', flush=True); time.sleep(60)"
    )
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "up\n"
    time.sleep(1.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143 and (tmp_path / "gone").exists()


def test_what_does_not_close_is_left_behind(tmp_path):
    """A thread that never ends keeps Python from ending, but not the program."""
    process = program_that_ends(
        tmp_path / "gone",
        True,
        "ending.wait(); import threading; threading.Thread(target=time.sleep, args=(600,)).start()",
        "surroundings.CLOSING_S = 0.5",
    )
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 1 and (tmp_path / "gone").exists()


def program_that_ends(gone: Path, in_good_order: bool, busy: str, first: str = "") -> subprocess.Popen:
    """A program within an Ending, up and ``busy``; it touches ``gone`` where it cleans up at once."""
    program = (
        "import sys, time; from app.startup import surroundings; from pathlib import Path\n"
        f"{first}\n"
        f"with surroundings.Ending(Path({str(gone)!r}).touch) as ending:\n"
        f"    if {in_good_order}: ending.in_good_order()\n"
        f"    print('up', flush=True)\n    {busy}\n"
        "print('closed in good order')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "up\n"
    return process
