"""What this machine has."""

from __future__ import annotations

import os
import re

import psutil
import torch

from core.devices import computes_bfloat16
from core.errors import QuantizationError
from quantization.bnb import is_available
from quantization.container import container_limits, whole_cores
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
    return _least(psutil.virtual_memory().available, container_limits().free_bytes)


def _least(amount: int, limit: int | None) -> int:
    """An amount within a limit; None is no limit."""
    return amount if limit is None else min(amount, limit)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    share = container_limits().cores
    return _least(cores, None if share is None else whole_cores(share))


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
        free = min(total, host + ours)
        return Hardware(Device.MPS, "Apple GPU", free, total, host, bitsandbytes=is_available("mps"))
    cores = usable_cores()
    free = host + ours
    name = f"CPU with {cores} core{'s' * (cores != 1)}"
    bf16 = computes_bfloat16(device)
    total = _least(psutil.virtual_memory().total, container_limits().memory_bytes)
    return Hardware(Device.CPU, name, free, total, free, bf16, is_available("cpu"))


def hypothetical_gpu(size: int, bf16: bool = True, host: int | None = None) -> Hardware:
    """A CUDA card of ``size`` bytes that need not be here, beside ``host`` bytes of free main memory."""
    if host is None:
        host = host_free_bytes()
    return Hardware(Device.CUDA, f"a {size / 2**30:.0f} GB GPU", size, size, host, bf16)
