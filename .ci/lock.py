"""`make lock`: from the ranges of the `.in` files to exact versions.

`requirements.lock` gets everything that is pulled in, for Python 3.11 to 3.13 on Linux, macOS and Windows.
The `.txt` files get the direct dependencies in those same versions; torch alone keeps its range there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
LOCK_HEADER = (
    "# Everything that is installed, exactly as tested, for Python 3.11 to 3.13 on Linux, macOS and Windows. "
    "Made by `make lock`.\n"
    "# Used as constraints: pip install -r requirements.txt -c requirements.lock\n"
)
HEADERS = {
    "requirements": (
        "# What running the page needs, in the versions that were tested. "
        "Made by `make lock` from requirements.in.\n"
        "# A Space installs this file as it is. torch alone is a range: "
        "ZeroGPU brings its own and refuses to have it replaced.\n"
    ),
    "requirements-train": (
        "# What training needs beyond running the page. Made by `make lock` from requirements-train.in.\n"
    ),
    "requirements-dev": (
        "# What checks, tests and the lock need beyond that. Made by `make lock` from requirements-dev.in.\n"
    ),
}
BASES = {"requirements-train": "requirements", "requirements-dev": "requirements-train"}
RANGED = "torch"
_NAME = re.compile(r"([A-Za-z0-9._-]+)(\[[^]]*\])?")


def normalized(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct(stem: str) -> dict[str, str]:
    """The requirements of ``stem``.in: normalized name to the whole line."""
    lines = (ROOT / f"{stem}.in").read_text(encoding="utf-8").splitlines()
    wanted = [line.strip() for line in lines if line.strip() and not line.startswith(("#", "-"))]
    return {normalized(_NAME.match(line)[1]): line for line in wanted}  # type: ignore[index]


def locked() -> dict[str, list[str]]:
    """The lock: normalized name to its exact versions; some packages have another for another Python."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(
        r"^([A-Za-z0-9._-]+)==([^\s;]+)", LOCK.read_text(encoding="utf-8"), re.MULTILINE
    ):
        found.setdefault(normalized(name), []).append(version)
    return found


def compile_lock(upgrade: bool) -> None:
    """Resolve all the ranges together; what still fits keeps its version unless ``upgrade``."""
    sources = [str(ROOT / f"{stem}.in") for stem in HEADERS]
    options = ["--universal", "--python-version=3.11", "--no-header", "--no-annotate", "--quiet"]
    if upgrade:
        options.append("--upgrade")
    subprocess.run(["uv", "pip", "compile", *sources, *options, "-o", str(LOCK)], check=True)
    LOCK.write_text(LOCK_HEADER + LOCK.read_text(encoding="utf-8"), encoding="utf-8")


def write_requirements() -> None:
    """The direct dependencies, each in the version of the lock."""
    versions = locked()
    for stem, header in HEADERS.items():
        lines = [f"-r {BASES[stem]}.txt"] if stem in BASES else []
        for name, line in direct(stem).items():
            # a direct dependency has one version for every Python
            (version,) = versions[name]
            lines.append(line if name == RANGED else f"{_NAME.match(line)[0]}=={version}")  # type: ignore[index]
        (ROOT / f"{stem}.txt").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    compile_lock("--upgrade" in sys.argv)
    write_requirements()
