"""A container's limits, read from made-up file systems."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from quantization import hardware
from quantization.container import Limits, container_limits, whole_cores

GIB = 2**30
UNLIMITED_V1 = "9223372036854771712"


def system(root, files):
    """A file system that holds these texts below ``root``."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def v2(place, limit, used, inactive=0):
    """The memory files of a group of version 2."""
    stat = f"anon 5\nfile {inactive + 1}\ninactive_file {inactive}\nactive_file 1\n"
    return {
        f"{place}/memory.max": f"{limit}\n",
        f"{place}/memory.current": f"{used}\n",
        f"{place}/memory.stat": stat,
    }


def v1(place, limit, used, inactive=0):
    """The memory files of a group of version 1; its own figures leave out the groups below."""
    return {
        f"{place}/memory.limit_in_bytes": f"{limit}\n",
        f"{place}/memory.usage_in_bytes": f"{used}\n",
        f"{place}/memory.stat": f"inactive_file 7\ntotal_cache 9\ntotal_inactive_file {inactive}\n",
    }


TOP = "sys/fs/cgroup"
MEMORY = f"{TOP}/memory"
OWN_V2 = {"proc/self/cgroup": "0::/outer/inner\n"}
OWN_V1 = {"proc/self/cgroup": "7:cpu,cpuacct:/outer\n5:memory:/outer/inner\n0::/ignored\n"}


@pytest.mark.parametrize(
    ("files", "limit", "free"),
    [
        ({}, None, None),
        (v2(TOP, 16 * GIB, 15 * GIB, 14 * GIB), 16 * GIB, 15 * GIB),
        (v2(TOP, "max", 15 * GIB), None, None),
        (
            {**OWN_V2, **v2(f"{TOP}/outer", 4 * GIB, GIB), **v2(f"{TOP}/outer/inner", "max", GIB)},
            4 * GIB,
            3 * GIB,
        ),
        (
            {**OWN_V2, **v2(f"{TOP}/outer", 8 * GIB, 7 * GIB), **v2(f"{TOP}/outer/inner", 4 * GIB, GIB)},
            4 * GIB,
            GIB,
        ),
        ({**OWN_V2, **v2(f"{TOP}/sibling", GIB, GIB)}, None, None),
        ({"proc/self/cgroup": "0::/../other\n", **v2(TOP, 2 * GIB, GIB)}, 2 * GIB, GIB),
        (v1(MEMORY, GIB, GIB // 2, GIB // 4) | OWN_V1, GIB, 3 * GIB // 4),
        (v1(f"{MEMORY}/outer", GIB, 0) | v1(f"{MEMORY}/outer/inner", 2 * GIB, 0) | OWN_V1, GIB, GIB),
        (v1(MEMORY, UNLIMITED_V1, GIB) | OWN_V1, int(UNLIMITED_V1), int(UNLIMITED_V1) - GIB),
        ({**OWN_V1, **v2(f"{TOP}/unified/ignored", 3 * GIB, GIB)}, 3 * GIB, 2 * GIB),
        ({f"{TOP}/memory.max": f"{GIB}\n"}, GIB, GIB),
        ({f"{TOP}/memory.max": f"{GIB}\n", f"{TOP}/memory.current": "12 MB\n"}, GIB, GIB),
        ({**v2(TOP, GIB, 3 * GIB)}, GIB, 0),
        ({f"{TOP}/memory.max": "", f"{TOP}/memory.current": "5"}, None, None),
        ({**v2(TOP, GIB, GIB // 2), f"{TOP}/memory.stat": "inactive_file\nnonsense"}, GIB, GIB // 2),
        ({**v2(TOP, GIB, GIB // 2), "proc/self/cgroup": "no colons at all\n\x00"}, GIB, GIB // 2),
        ({**v2(TOP, GIB, 0), f"{TOP}/memory.swap.max": "0", f"{TOP}/memory.swap.current": "0"}, GIB, GIB),
    ],
)
def test_memory(files, limit, free, tmp_path):
    found = container_limits(system(tmp_path, files))
    assert (found.memory_bytes, found.free_bytes) == (limit, free)


def test_a_file_that_cannot_be_read(tmp_path):
    root = system(tmp_path, v2(TOP, GIB, GIB // 2))
    (root / TOP / "memory.current").unlink()
    (root / TOP / "memory.current").mkdir()  # reading it is an OSError, as without permission
    assert container_limits(root).free_bytes == GIB


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({f"{TOP}/cpu.max": "max 100000\n"}, None),
        ({f"{TOP}/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                **OWN_V2,
                f"{TOP}/outer/cpu.max": "50000 100000\n",
                f"{TOP}/outer/inner/cpu.max": "200000 100000",
            },
            0.5,
        ),
        (
            {
                **OWN_V1,
                f"{TOP}/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                f"{TOP}/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        (
            {
                **OWN_V1,
                f"{TOP}/cpu/outer/cpu.cfs_quota_us": "300000",
                f"{TOP}/cpu/outer/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        ({f"{TOP}/cpu.max": "100000"}, None),
        ({f"{TOP}/cpu.max": "100000 0"}, None),
    ],
)
def test_cores(files, cores, tmp_path):
    assert container_limits(system(tmp_path, files)).cores == cores


def test_a_share_of_a_core_is_one_core():
    assert [whole_cores(share) for share in (0.2, 1.0, 1.5)] == [1, 1, 2]


def test_the_machine_is_as_large_as_its_container(monkeypatch):
    import torch

    seen = SimpleNamespace(available=20 * GIB, total=24 * GIB)
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: seen)
    monkeypatch.setattr(hardware, "container_limits", lambda: Limits(4 * GIB, 3 * GIB, 0.5))
    found = hardware.detect(torch.device("cpu"))
    assert (found.free_bytes, found.total_bytes, found.name) == (3 * GIB, 4 * GIB, "CPU with 1 core")
    monkeypatch.setattr(
        hardware, "container_limits", lambda: Limits(int(UNLIMITED_V1), int(UNLIMITED_V1), math.inf)
    )
    found = hardware.detect(torch.device("cpu"))
    assert (found.free_bytes, found.total_bytes) == (20 * GIB, 24 * GIB)
    monkeypatch.setattr(hardware, "container_limits", Limits)  # macOS, Windows
    assert hardware.detect(torch.device("cpu"), ours=GIB).free_bytes == 21 * GIB
