"""What this machine has."""

from __future__ import annotations

import os
import re

import psutil
import torch

from quantization.bnb import is_available
from quantization.errors import QuantizationError
from quantization.modes import Device, Hardware

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GB|GiB|G|MB|MiB|M)?", re.IGNORECASE)
_UNITS = {"g": 2**30, "gb": 2**30, "gib": 2**30, "m": 2**20, "mb": 2**20, "mib": 2**20}


def parse_size(text: str) -> int:
    """ "12GB" to bytes; sellers' gigabytes of memory are 2^30 bytes.

    Raises:
        QuantizationError: it is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if not found or float(found.group(1)) <= 0:
        raise QuantizationError(f"'{text}' is no amount of memory; write it like 12GB.")
    return round(float(found.group(1)) * _UNITS[(found.group(2) or "g").lower()])


def host_free_bytes() -> int:
    """Main memory that can be had without swapping, a container's limit included."""
    free = psutil.virtual_memory().available
    try:
        with (
            open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit,
            open("/sys/fs/cgroup/memory.current", encoding="ascii") as used,
        ):
            free = min(free, int(limit.read()) - int(used.read()))
    except (OSError, ValueError):  # no such limit
        pass
    return max(0, free)


def detect(device: torch.device, ours: int = 0) -> Hardware:
    """A device as it is now.

    Args:
        ours: bytes that a loaded model holds there already, which count as free.
    """
    host = host_free_bytes()
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device)
        properties = torch.cuda.get_device_properties(device)
        bf16 = properties.major >= 8 or torch.version.hip is not None
        return Hardware(Device.CUDA, properties.name, free, total, host, bf16, is_available("cuda"))
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return Hardware(Device.MPS, "Apple GPU", min(total, host + ours), total, host, True, is_available("mps"))
    name, free = f"CPU with {os.cpu_count()} cores", host + ours
    return Hardware(Device.CPU, name, free, psutil.virtual_memory().total, free, True, is_available("cpu"))


def imagined_gpu(size: int, bf16: bool = True, host: int | None = None) -> Hardware:
    """A CUDA card of ``size`` bytes that need not be here."""
    return Hardware(
        Device.CUDA, f"a {size / 2**30:.0f} GB GPU", size, size, host_free_bytes() if host is None else host, bf16, True
    )
