"""What a start may find around it: closed streams, empty variables, proxies, signals."""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

from core.errors import HaploOmniError

OURS_OR_THEIRS = (
    "HAPLO_",
    "GRADIO_",
    "HF_",
    "HUGGINGFACE_",
    "TRANSFORMERS_",
    "DIFFUSERS_",
    "IMAGEIO_",
    "FFMPEG_",
    "FFPLAY_",
)
# Gradio reads these at its import, and a wrong one ends the start; the page's own options decide instead
OVERRULED = ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_NUM_PORTS")
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
SAME_S = 1.0  # signals so close are one request
LOOK_S = 0.2  # how soon a request is seen
CLOSING_S = 9.0  # who stops services kills them after ten


def ensure_streams() -> None:
    """Give the process an input, output and error stream, and outputs that never fail.

    A missing one (``>&-``, a service, pythonw) becomes the other output, else nothing at all.
    Its number is taken too: otherwise the next opened file would get it, and receive what C libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None and sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:
            setattr(sys, name, unfailing(stream))
            setattr(sys, f"__{name}__", getattr(sys, name))
    sys.stdout = sys.stdout or sys.stderr
    sys.stderr = sys.stderr or sys.stdout


def unfailing(stream: Any) -> Any:
    """The same stream, indifferent to its reader: a terminal, script or disk may take nothing any more."""
    if type(stream) is not io.TextIOWrapper:
        return stream
    encoding = stream.encoding
    by_line = stream.line_buffering
    return _Unfailing(stream.detach(), encoding=encoding, errors="backslashreplace", line_buffering=by_line)


class _Unfailing(io.TextIOWrapper):
    """Writes every character, as an escape where the encoding has none; drops what cannot be written."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def drop_empty_variables(environ: MutableMapping[str, str]) -> None:
    """Remove variables set to nothing, as docker compose makes many: libraries take some for a value."""
    for name in list(environ):
        if name in OVERRULED or (name.startswith(OURS_OR_THEIRS) and not environ[name].strip()):
            del environ[name]


@contextmanager
def reaching_itself(share: bool = False, hosts: tuple[str, ...] = ()) -> Iterator[None]:
    """Within, requests of this process go around the proxies and certificates of the environment.

    Gradio makes HTTP clients at its import and asks its own page at launch.
    A client builds every proxy of the environment when it is made, so an exception for one host does not save
    it from a proxy it cannot use.

    Args:
        share: the public link needs the proxies, so only ``hosts`` go around them.
        hosts: where the page itself is.
    """
    around = "*"
    if share:
        known = [os.environ.get("no_proxy"), os.environ.get("NO_PROXY")]
        around = ",".join([name for name in known if name] + list(hosts))
    changed = {"no_proxy": around, "NO_PROXY": around}
    hidden = () if share else ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ.get(name) for name in (*changed, *hidden)}
    os.environ.update(changed)
    for name in hidden:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def check_share_proxy() -> None:
    """A public link is made through the proxies of the environment, so they have to be usable.

    Raises:
        HaploOmniError: one is not; says which and why.
    """
    for kind, url in urllib.request.getproxies().items():
        if kind not in ("http", "https", "all"):
            continue
        try:
            parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
            usable = bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:  # brackets that do not close, a port that is no number
            usable = False
        if not usable:
            raise HaploOmniError(
                f"--share cannot use the proxy of {kind}_proxy: it is no address; correct or unset it."
            )
        scheme = parts.scheme
        if scheme not in ("http", "https", "socks5", "socks5h"):
            raise HaploOmniError(
                f"--share cannot use the proxy of {kind}_proxy ({scheme}); use http, https or socks5."
            )
        if scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
            raise HaploOmniError(
                f"--share needs the package socksio for the SOCKS proxy of {kind}_proxy; "
                "run: python -m pip install socksio"
            )


class Ending:
    """When to end: asked by a signal. A context that gives the signals back.

    The first signal after :meth:`in_good_order` makes :meth:`wait` return.
    An earlier one, while the model loads, or a second one ends the process at once, after ``clean_up``.
    Signals within a second count as one: ``make`` passes on to its program what both of them got.

    The handler takes no lock: it may interrupt itself, or whoever holds that lock.
    """

    def __init__(self, clean_up: Callable[[], None]) -> None:
        self._clean_up = clean_up
        self._asked_s: float | None = None
        self._in_good_order = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Ending:
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
                continue  # a program started by nohup outlives its terminal
            self._before[number] = signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, _frame: object) -> None:
        now = time.monotonic()
        if self._in_good_order:
            self._asked_s = now if self._asked_s is None else self._asked_s
            if now - self._asked_s < SAME_S:
                return
        # no exception: raised inside an import or a library's loop, it may be swallowed
        self._clean_up()
        os._exit(128 + number)

    def in_good_order(self) -> None:
        """From now on there is something to close."""
        self._in_good_order = True

    def wait(self) -> None:
        """Return when a signal asks for the end.

        The process then has :data:`CLOSING_S` to close in good order.
        A thread that does not come back, such as one in a decoder that hangs, holds up nobody longer.
        """
        while self._asked_s is None:
            time.sleep(LOOK_S)
        at_latest = threading.Timer(CLOSING_S, self._give_up)
        at_latest.daemon = True
        at_latest.start()

    def _give_up(self) -> None:
        self._clean_up()
        os._exit(1)
