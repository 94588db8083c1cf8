"""Where the model lives and in which precision: decided once, here."""

from __future__ import annotations

import torch
from torch import nn

from core.errors import RequestError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """``"auto"`` is CUDA, then Apple's MPS, then the CPU.

    Raises:
        RequestError: the device is unknown or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise RequestError(f"'{name}' is not a device; use auto, cpu, cuda, cuda:N or mps.") from None
    if device.type == "cuda" and not (
        torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    ):
        raise RequestError(
            f"The device '{name}' was asked for, but PyTorch sees no such GPU; use auto or cpu."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RequestError("The device 'mps' was asked for, but this is no Mac with MPS; use auto or cpu.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise RequestError(f"The device '{name}' is not supported; use auto, cpu, cuda, cuda:N or mps.")
    return device


def resolve_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """``"auto"`` is bfloat16 on a GPU and float32 on the CPU (exact, and fast enough for the bundled model).

    Raises:
        RequestError: it is not a floating point type we run in.
    """
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise RequestError(f"'{name}' is not a dtype; use auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices quickly.

    A CPU without the instructions emulates them.
    That is up to fifty times slower than float32 (measured on one with AVX2 alone).
    """
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def working_device(module: nn.Module) -> torch.device:
    """Where a module computes: where its offload hook brings it, else where its weights are."""
    hook = getattr(module, "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return torch.device(device) if device is not None else next(module.parameters()).device


def empty_cache(device: torch.device) -> None:
    """Give freed memory back to the driver, where the device keeps it in a cache."""
    backend = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(backend, "empty_cache"):
        backend.empty_cache()  # type: ignore[union-attr]
