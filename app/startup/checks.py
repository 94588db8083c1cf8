"""Whatever prevents a start, found before the model is loaded, the cheapest first; one sentence each."""

from __future__ import annotations

import logging
from importlib import import_module
from types import ModuleType

from app.settings import Settings
from app.startup.address import find_address
from app.startup.folders import check_folder
from app.startup.surroundings import check_share_proxy, reaching_itself
from app.startup.versions import check_versions, mending, versions_line
from core.errors import HaploOmniError

logger = logging.getLogger(__name__)
# in the order in which the page needs them; the last two are our own and bring the rest
MODULES = ("torch", "transformers", "diffusers", "accelerate", "gradio", "core.pipelines", "app.web.page")


def check_settings(settings: Settings) -> None:
    """What can be known without importing anything: milliseconds.

    Raises:
        HaploOmniError: the program cannot start so.
    """
    warnings = check_versions(untested=settings.untested)
    find_address(settings.host, settings.port)
    if settings.share:
        check_share_proxy()
    if settings.outputs is not None:
        check_folder(settings.outputs, "--outputs")
    logger.info(versions_line())
    for warning in warnings:
        logger.warning(warning)


def check_media() -> None:
    """OpenCV and ffmpeg: a second.

    Raises:
        HaploOmniError: one of them cannot run.
    """
    media = import_or_explain("core.media")
    media.check_opencv()
    media.check_encoder()


def check_imports() -> None:
    """Import what the page needs: seconds.

    Raises:
        HaploOmniError: a package is installed, but cannot be imported.
    """
    with reaching_itself():
        for name in MODULES:
            import_or_explain(name)


def import_or_explain(name: str) -> ModuleType:
    """Import a module.

    Raises:
        HaploOmniError: it cannot be imported; says why in one sentence.
    """
    try:
        return import_module(name)
    except HaploOmniError:
        raise
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise HaploOmniError(f"{name} cannot be imported ({said}); {mending(again=True)}") from error
