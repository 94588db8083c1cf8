"""What a container (a Linux control group, version 1 or 2) leaves of the machine: memory and CPU cores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")


@dataclass(frozen=True)
class Limits:
    """The tightest limits of all groups that this process is in; None where there is none.

    Args:
        memory_bytes: of main memory; swap is not counted.
        free_bytes: left of it, file cache that can be dropped included.
        cores: of CPU time.
    """

    memory_bytes: int | None = None
    free_bytes: int | None = None
    cores: float | None = None


def container_limits(root: Path = ROOT) -> Limits:
    """Limits of this process's group and of all groups above it.

    Args:
        root: of the file system.
    """
    memory: list[int] = []
    free: list[int] = []
    cores: list[float] = []
    # what every group may use, and has left
    for folder in _groups(root, "memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        if limit is not None:
            used = _number(folder / "memory.current", folder / "memory.usage_in_bytes") or 0
            memory.append(limit)
            free.append(limit - max(0, used - _droppable(folder / "memory.stat")))
    for folder in _groups(root, "cpu"):
        share = _cores(folder)
        if share is not None:
            cores.append(share)
    return Limits(
        min(memory, default=None),
        max(0, min(free)) if free else None,
        min(cores, default=None),
    )


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's groups, from the mount points down.

    A container often sees its own group at the mount point, and a path of the host in ``/proc/self/cgroup``:
    whatever of that path is not there is left out.
    """
    mounts = root / "sys" / "fs" / "cgroup"
    yield mounts
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2, alone or beside version 1
            places = [mounts, mounts / "unified"]
        elif controller in controllers.split(","):
            places = [mounts / controllers, mounts / controller]
        else:
            continue
        # the group's own folder, and those above it
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # outside of what this container sees
            parts = []
        for place in places:
            yield place
            for depth in range(1, len(parts) + 1):
                yield place.joinpath(*parts[:depth])


def _cores(folder: Path) -> float | None:
    """CPU time that a group may use, in cores."""
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:  # version 1
        quota = _text(folder / "cpu.cfs_quota_us").strip()
        period = _text(folder / "cpu.cfs_period_us").strip()
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None  # "max", or -1
    return int(quota) / int(period)


def whole_cores(share: float) -> int:
    """A share of CPU time, in cores, as a whole number of them: at least one."""
    return max(1, math.ceil(min(share, 1e6)))


def _droppable(stat: Path) -> int:
    """Bytes of file cache that nobody has used for long, which the system drops when memory is needed."""
    values = dict(line.split(" ", 1) for line in _text(stat).splitlines() if " " in line)
    value = values.get("total_inactive_file", values.get("inactive_file", "")).strip()
    return int(value) if value.isdecimal() else 0


def _number(*files: Path) -> int | None:
    """The first file's number; None for "max", half a file, or none at all."""
    for file in files:
        text = _text(file).strip()
        if text.isdecimal():
            return int(text)
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not there, as on macOS and Windows, or not ours to read
        return ""
