"""`make newest`: do the newest versions work?

In a fresh environment: the newest versions that the ranges of the `.in` files allow, one line for each
package that is not the lock's, then all tests but those of training and quantization.

`NEXT=1` goes beyond the ranges, `OLDEST=1` takes the oldest of every direct dependency.
`TORCH=2.14.1` asks for one release of torch.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from lock import HEADERS, ROOT, direct, locked, normalized

TESTS = ["tests", "--ignore=tests/core/training", "--ignore=tests/quantization"]


def set_in(name: str) -> bool:
    """Whether an environment variable says yes."""
    return os.environ.get(name, "") not in ("", "0")


def wishes() -> list[str]:
    """What pip is asked for: the ranges, without their upper ends, or only their lower ends."""
    lines = {name: line for stem in HEADERS for name, line in direct(stem).items()}
    if set_in("NEXT"):
        lines = {name: re.sub(r",?<[^,;\s]+", "", line) for name, line in lines.items()}
    if set_in("OLDEST"):  # of what the program runs with, not of the tools that check it
        oldest = {
            name: re.sub(r">=([^,;\s]+)(,<[^,;\s]+)?", r"==\1", line)
            for name, line in direct("requirements").items()
        }
        lines |= oldest
    if os.environ.get("TORCH"):
        lines["torch"] = f"torch=={os.environ['TORCH']}"
    return list(lines.values())


def installed(python: Path) -> dict[str, str]:
    """What an environment holds: normalized name to version."""
    printed = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True
    ).stdout
    return {normalized(row["name"]): row["version"] for row in json.loads(printed)}


def moved(versions: dict[str, str]) -> list[str]:
    """One line for each package whose version is not the lock's."""
    tested = locked()
    return [
        f"{name}: {' or '.join(tested.get(name, ['not in the lock']))} -> {version}"
        for name, version in sorted(versions.items())
        if name != "pip" and version.partition("+")[0] not in tested.get(name, [])
    ]


def main(tests: list[str]) -> int:
    """Install, say what moved, run the tests; the exit code is pytest's."""
    with tempfile.TemporaryDirectory(prefix="haploomni-newest-") as folder:
        environment = Path(folder) / "venv"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HAPLO_UNTESTED": "1"}
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wishes()], check=True, env=environ)
        lines = moved(installed(python))
        print(
            "\n".join(lines) or "nothing moved: the lock holds the newest versions that the ranges allow",
            flush=True,
        )
        return subprocess.run(
            [python, "-m", "pytest", "-q", *(tests or TESTS)], cwd=ROOT, env=environ
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
