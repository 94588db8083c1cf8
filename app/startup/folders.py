"""Folders the program writes to, checked before anything is loaded. Imports nothing heavy."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import MutableMapping
from pathlib import Path

from filelock import FileLock, Timeout

from core.errors import HaploOmniError

logger = logging.getLogger(__name__)
NOWHERE = "none"  # the value of --state that keeps nothing
ABANDONED_S = 24 * 3600.0


def check_folder(name: str, meaning: str) -> Path:
    """Make a folder where there is none, and write and remove a small file in it.

    Args:
        name: the folder; ``~`` is the home folder.
        meaning: what it is for or who named it, such as ``"--outputs"``.

    Returns:
        The folder, absolute.

    Raises:
        HaploOmniError: it is a file, cannot be made or cannot be written to. What was made is gone again.
    """
    made: list[Path] = []
    try:
        folder = Path(name).expanduser().resolve()
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
            made.append(place)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
    except (OSError, ValueError, RuntimeError) as error:
        for place in reversed(made):
            place.rmdir()
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        raise HaploOmniError(f"The folder {shown!r} of {meaning} {reason(error)}; choose another.") from None
    return folder


def reason(error: Exception) -> str:
    """Why a folder cannot be used, as the end of a sentence."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return "is a file or lies in one"
    text = getattr(error, "strerror", None) or str(error)
    return f"cannot be written to ({text[:1].lower()}{text[1:].rstrip('.')})"


class OwnFolder:
    """A folder for uploads of this one program run, which Gradio is told of.

    Gradio's own default is one folder for all users and programs of a machine:
    another user's cannot be written to, and a program that ends removes files that another still shows.
    ``GRADIO_TEMP_DIR`` names the place in which it is made, else the system's for temporary files is.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        named = environ.get("GRADIO_TEMP_DIR")
        if named:
            place = check_folder(named, "GRADIO_TEMP_DIR")
        else:
            try:
                place = Path(tempfile.gettempdir())
            except FileNotFoundError:
                raise HaploOmniError(
                    "No folder for temporary files can be written to; name one in TMPDIR."
                ) from None
        try:
            self.path = Path(tempfile.mkdtemp(prefix="haploomni-gradio-", dir=place)).resolve()
        except OSError as error:
            said = f"The folder {str(place)!r} for temporary files {reason(error)}"
            raise HaploOmniError(f"{said}; name another in TMPDIR.") from None
        self._environ = environ
        self._named = named
        environ["GRADIO_TEMP_DIR"] = str(self.path)

    def remove(self) -> None:
        """Remove it with all in it; what others hold is not touched."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._environ.get("GRADIO_TEMP_DIR") == str(self.path):
            if self._named:
                self._environ["GRADIO_TEMP_DIR"] = self._named
            else:
                del self._environ["GRADIO_TEMP_DIR"]


class StateFolder:
    """A folder for what outlives a restart: results, uploads and tickets, each for its time.

    One program has it alone.
    It is found again by the port, as the page is by the visitor's browser.

    Args:
        named: where, as the settings say; "none" is nowhere, None is the user's own place.
        port: of the page.

    Attributes:
        path: the folder; None where nothing outlives the program.

    Raises:
        HaploOmniError: the named place cannot be written to.
    """

    def __init__(self, named: str | None, port: int, environ: MutableMapping[str, str]) -> None:
        self.path: Path | None = None
        self._lock: FileLock | None = None
        if named == NOWHERE:
            return
        if named is not None:
            place = check_folder(named, "--state")
        else:
            try:
                place = check_folder(str(users_place(environ)), "this user's state")
            except (HaploOmniError, RuntimeError) as error:  # a container without a home
                logger.info("nothing outlives a restart: %s", error)
                return
        folder = place / f"page-{port}"
        remove_abandoned(place)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self._lock = FileLock(folder / "lock")
            self._lock.acquire(blocking=False)
        except (OSError, Timeout) as error:
            # another program with the same port, at another address of this machine
            logger.info("nothing outlives a restart: %s", error)
            self._lock = None
            return
        self.path = folder

    def release(self) -> None:
        """Another program may have it."""
        if self._lock is not None:
            self._lock.release()


def remove_abandoned(place: Path) -> None:
    """Remove what programs at other ports left behind a day ago or earlier: they may never come back."""
    for folder in place.glob("page-*"):
        lock = FileLock(folder / "lock")
        try:
            lock.acquire(blocking=False)
            newest_s = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            if time.time() - newest_s > ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, Timeout):  # it runs
            continue
        finally:
            lock.release()


def users_place(environ: MutableMapping[str, str]) -> Path:
    """Where programs of this user keep what outlives them."""
    named = environ.get("XDG_STATE_HOME") or environ.get("LOCALAPPDATA")
    if named and Path(named).is_absolute():
        return Path(named) / "haploomni"
    return Path.home() / ".local" / "state" / "haploomni"
