"""From settings to a running page."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from app.engine.jobs import Event, Finished
from app.settings import Settings
from app.startup.address import find_address
from app.startup.checks import check_imports, check_media, check_settings
from app.startup.folders import OwnFolder, StateFolder
from app.startup.surroundings import Ending, drop_empty_variables, reaching_itself
from app.startup.versions import versions_line
from core.errors import HaploOmniError

if TYPE_CHECKING:
    from app.engine.engine import Engine
    from app.engine.memory import MemoryManager
    from app.engine.tickets import Tickets
    from app.services.library import Library
    from app.web.page import Page

logger = logging.getLogger(__name__)
TELLING_S = 0.5  # until what readers are told has left


def run(settings: Settings) -> int:
    """Load, serve until interrupted, clean up.

    Returns:
        The exit code: 2, after one sentence, when it cannot start.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "transformers", "diffusers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    drop_empty_variables(os.environ)
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        check_settings(settings)
        folder = OwnFolder(os.environ)
        try:
            with Ending(folder.remove) as ending:
                serve_until_asked(settings, ending)
        finally:
            folder.remove()
    except HaploOmniError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except Exception:
        logger.exception("unexpected error; %s", versions_line())
        return 1
    return 0


def serve_until_asked(settings: Settings, ending: Ending) -> None:
    """Import, load and serve until a signal asks for the end; closes what it opened, however it ends.

    Raises:
        HaploOmniError: it cannot start; one sentence.
    """
    started = time.monotonic()
    check_media()
    check_imports()
    engine, memory = load_engine(settings)
    from app.engine.ticket_store import TicketStore
    from app.engine.tickets import Tickets
    from app.services.library import Library
    from app.web.page import close_page

    # the page may have visitors from the moment it answers, before its launch returns
    ending.in_good_order()
    with ExitStack() as stack:
        stack.callback(engine.close)
        port = find_address(settings.host, settings.port).port  # again, since loading takes its time
        state = StateFolder(settings.state, port, os.environ)
        stack.callback(state.release)
        keep_s = 60.0 * settings.keep
        library = Library(settings.outputs, state.path, keep_s)
        stack.callback(library.close)
        store = None if state.path is None else TicketStore(state.path / "tickets")
        tickets = Tickets(engine, store, settings.grace, keep_s, settings.max_per_address)
        stack.callback(tickets.close)
        page = serve(tickets, memory, library, settings, port)
        # the page goes first: nobody asks an engine that has ended
        stack.callback(close_page, page)
        if memory.can_warm_up:
            engine.submit(memory.warm_up, log_failure, preemptible=True)
        logger.info("ready after %.1f s", time.monotonic() - started)
        ending.wait()
        logger.info("stopping")
        # first, so that every reader is told and the page has no stream left to wait for
        engine.close()
        time.sleep(TELLING_S)


def log_failure(event: Event) -> None:
    """A warm-up that fails costs no more than the estimate of the first clip's time."""
    if isinstance(event, Finished) and event.error is not None:
        logger.warning("the time of the first clip is not known: %s", event.error)


def load_engine(settings: Settings) -> tuple[Engine, MemoryManager]:
    """Plan the memory, load the one model and put it behind an engine.

    Raises:
        HaploOmniError: it cannot be loaded, or not so; one sentence.
    """
    from app.engine.engine import Engine
    from app.engine.memory import plan_memory
    from app.engine.turns import Lane
    from core import HaploOmni

    memory = plan_memory(settings)
    logger.info("%s. %s", memory.mode.describe(), memory.plan.why)
    started = time.monotonic()
    omni = HaploOmni.load(
        settings.checkpoint, str(memory.device), memory.dtype, settings.vae, memory.load_options()
    )
    memory.attach(omni)
    logger.info(memory.loaded(time.monotonic() - started))
    places = {Lane.CHAT: memory.chat_places()}
    max_job_s = 60.0 * settings.max_minutes
    return Engine(omni, settings.max_queue, settings.max_per_visitor, places, max_job_s), memory


def serve(tickets: Tickets, memory: MemoryManager, library: Library, settings: Settings, port: int) -> Page:
    """Build and launch the page; returns once it answers.

    Raises:
        HaploOmniError: the address was taken meanwhile, or does not answer.
    """
    from app.api.guard import guarding
    from app.api.operations import add_health_route
    from app.services.chat import ChatService
    from app.services.estimates import Estimates
    from app.services.video import VideoService
    from app.web.page import build_page, open_page

    engine = tickets.engine
    video = VideoService(tickets, memory, library)
    page = build_page(ChatService(tickets, library), video, Estimates(engine, memory))
    address = find_address(settings.host, port)
    try:
        with reaching_itself(settings.share, (address.reachable_ip, "localhost")):
            open_page(page, address.server_name, address.port, settings.share, library.folder, guarding())
    except (OSError, ValueError) as error:
        raise HaploOmniError(
            f"The page cannot be opened at {address.url} ({error}); choose another --port."
        ) from error
    add_health_route(page.app, engine)
    logger.info("Running on local URL: %s", address.url)
    return page
