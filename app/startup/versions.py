"""Which versions are installed, and whether they are those the program works with. Imports nothing heavy."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import shutil
import subprocess
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import HaploOmniError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
NAMED = ("torch", "transformers", "diffusers", "gradio", "bitsandbytes")
NEWEST_PYTHON = (3, 13)
# any of these brings the same module, cv2
OPENCV = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


@lru_cache
def versions() -> dict[str, str]:
    """The versions an error report needs: Python's, and of what the program stands on."""
    return {"Python": platform.python_version()} | {
        name: installed_version(name) or "missing" for name in NAMED
    }


def versions_line() -> str:
    """The same in one line."""
    return ", ".join(["HaploOmni demo", *(f"{name} {version}" for name, version in versions().items())])


def installed_version(name: str) -> str | None:
    """The installed version of a package, or None."""
    for candidate in OPENCV if name in OPENCV else (name,):
        try:
            version = metadata.version(candidate)
        except metadata.PackageNotFoundError:
            continue
        if version:  # an interrupted installation leaves metadata without one
            return version
    return None


def check_versions(folder: Path = ROOT, untested: bool = False) -> list[str]:
    """Compare what is installed with the ranges of ``requirements.in`` and the pins of ``requirements.txt``.

    Args:
        untested: a package outside its range is a warning like one that is not as tested.

    Returns:
        A sentence for each package that is within its range, but not as tested.

    Raises:
        HaploOmniError: packages are missing, too old or too new; names each, and the command that mends it.
    """
    if importlib.util.find_spec("packaging") is None:
        raise HaploOmniError(
            f"The package packaging is not installed, and maybe others are not; {mending(folder)}"
        )
    ranges = read_requirements(folder / "requirements.in")
    pins = {pin.name: pin for pin in read_requirements(folder / "requirements.txt")}
    faults = []
    warnings = []
    for requirement in ranges:
        version = installed_version(requirement.name)
        fault = describe_fault(requirement, version)
        pin = pins.get(requirement.name)
        if fault and untested and version is not None:
            warnings.append(fault)
        elif fault:
            faults.append(fault)
        elif pin is not None and not pin.specifier.contains(str(version), prereleases=True):
            tested = str(pin.specifier).lstrip("=")
            warnings.append(f"{requirement.name} {version} is installed; tested with {tested}")
    if faults:
        raise HaploOmniError(f"{faults_listed(faults)}; {mending(folder)}")
    if sys.version_info[:2] > NEWEST_PYTHON:
        warnings.append(f"Python {platform.python_version()} is not tested; 3.11 to 3.13 are")
    return warnings


def faults_listed(faults: list[str]) -> str:
    """The beginning of a sentence from the faults of all packages."""
    shown = (
        faults
        if len(faults) <= 3
        else [*faults[:2], f"{len(faults) - 2} other packages are not right either"]
    )
    if len(shown) == 1:
        return f"The package {shown[0]}"
    return f"The package {', '.join(shown[:-1])} and {shown[-1]}"


def describe_fault(requirement: Requirement, version: str | None) -> str | None:
    """``"gradio is missing"``, ``"gradio 5.0 is too old (>=6.31 is needed)"``; None when it is right."""
    from packaging.version import InvalidVersion, Version

    if version is None:
        return f"{requirement.name} is missing"
    needed = ",".join(sorted(map(str, requirement.specifier), reverse=True))
    try:
        found = Version(version)
    except InvalidVersion:
        return f"{requirement.name} has the unreadable version {version!r} ({needed} is needed)"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    bounds = [one for one in requirement.specifier if one.operator in (">", ">=", "~=", "==")]
    below = any(found < Version(bound.version.removesuffix(".*")) for bound in bounds)
    judged = "too old" if below else "too new"
    return f"{requirement.name} {version} is {judged} ({needed} is needed)"


def read_requirements(file: Path) -> list[Requirement]:
    """A file's requirements that apply to this Python and system; options such as ``-r`` are passed over."""
    from packaging.requirements import InvalidRequirement, Requirement

    if not file.is_file():
        return []
    found = []
    text = file.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        wanted = line.split(" #")[0].split(" --hash")[0].strip()
        if not wanted or wanted.startswith(("#", "-")):
            continue
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement:
            logger.warning("%s: not understood: %s", file.name, wanted)
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return found


def mending(folder: Path = ROOT, again: bool = False) -> str:
    """The command that installs what is needed: into this virtual environment, or else into one of our own.

    Args:
        folder: where the requirements are.
        again: a package is there, but broken.
    """
    in_environment = sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ
    if not in_environment and (folder / "Makefile").is_file() and shutil.which("make"):
        return "run: make run"
    forced = ["--force-reinstall"] if again else []
    lock = folder / "requirements.lock"
    locked = ["-c", str(lock)] if lock.is_file() else []
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *forced,
        "-r",
        str(folder / "requirements.txt"),
        *locked,
    ]
    return f"run: {subprocess.list2cmdline(command)}"
