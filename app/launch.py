"""From settings to a running page."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

from app.jobs import Ended, Event
from app.settings import Settings
from core.errors import HaploOmniError
from quantization.errors import QuantizationError

if TYPE_CHECKING:
    import gradio as gr

    from app.engine import Engine
    from app.memory import MemoryKeeper
    from app.storage import Storage

logger = logging.getLogger(__name__)
DEFAULT_PORT = Settings.port


def run(settings: Settings) -> int:
    """Load, serve until interrupted, clean up. Returns the exit code: 2 with one sentence when it cannot start."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "transformers", "diffusers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    started = time.monotonic()
    try:
        port = choose_port(settings.host, settings.port)
        engine, keeper = load_engine(settings)
    except (HaploOmniError, QuantizationError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    from app.storage import Storage

    storage = Storage(settings.outputs)
    page = serve(engine, keeper, storage, settings, port)
    if keeper.can_rehearse:
        engine.submit(keeper.rehearse, log_failure, gives_way=True)
    logger.info("ready after %.1f s", time.monotonic() - started)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(1.0):
        pass
    logger.info("stopping")
    page.close(verbose=False)
    engine.close()
    storage.close()
    return 0


def log_failure(event: Event) -> None:
    """A rehearsal that fails costs no more than the forecast of the first clip's time."""
    if isinstance(event, Ended) and event.error is not None:
        logger.warning("the time of the first clip is not known: %s", event.error)


def choose_port(host: str, wanted: int) -> int:
    """The wanted port; when it is the default and busy, the next free one of twenty.

    Raises:
        HaploOmniError: the host cannot be listened on, or every port is busy.
    """
    if wanted == 0:
        return 0
    for port in range(wanted, wanted + (20 if wanted == DEFAULT_PORT else 1)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if isinstance(error, socket.gaierror) or error.errno == 99:
                    raise HaploOmniError(f"The host '{host}' is no address of this machine; use 127.0.0.1 or 0.0.0.0.") from None
                continue
            return port
    raise HaploOmniError(f"The port {wanted} is busy or closed; choose another with --port.")


def load_engine(settings: Settings) -> tuple[Engine, MemoryKeeper]:
    """Plan the memory, load the one model and put it behind an engine.

    Raises:
        HaploOmniError, QuantizationError: it cannot be loaded, or not so; one sentence.
    """
    from app.engine import Engine
    from app.memory import plan_memory
    from core import HaploOmni

    keeper = plan_memory(settings)
    logger.info("%s. %s", keeper.mode.describe(), keeper.plan.why)
    started = time.monotonic()
    omni = HaploOmni.load(settings.checkpoint, str(keeper.device), keeper.dtype, settings.vae, keeper.holding())
    keeper.attach(omni)
    logger.info(keeper.loaded(time.monotonic() - started))
    return Engine(omni, settings.max_queue), keeper


def serve(engine: Engine, keeper: MemoryKeeper, storage: Storage, settings: Settings, port: int) -> gr.Blocks:
    """Build and launch the page; returns once it answers."""
    from starlette.middleware import Middleware

    from app.guard import Guard
    from app.page import build_page
    from app.theme import CSS, HEAD, theme

    page = build_page(engine, keeper, storage)
    page.queue(max_size=64, api_open=False, default_concurrency_limit=32)
    page.launch(
        server_name=settings.host,
        server_port=port or None,
        share=settings.share,
        theme=theme(),
        css=CSS,
        head=HEAD,
        ssr_mode=False,
        pwa=False,
        show_error=False,
        max_file_size="200mb",
        allowed_paths=[str(storage.folder)],
        enable_monitoring=False,
        run_history=False,
        footer_links=["api", "settings"],
        app_kwargs={"middleware": [Middleware(Guard)]},
        prevent_thread_lock=True,
    )
    return page
