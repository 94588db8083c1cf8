"""What leaves the device while it is not needed.

Every use goes through hooks on ``forward``, of the autoencoder also on ``decode``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, ModelHook, add_hook_to_module
from accelerate.utils import send_to_device
from torch import Tensor, nn

from core.devices import empty_cache
from quantization.modes import BUFFERS, Offload

CPU = torch.device("cpu")
Place = tuple[Callable[[], Tensor], Callable[[Tensor], Any]]


def apply_offload(
    model: Any, vae: nn.Module, device: torch.device, offload: Offload, vae_on_cpu: bool = False
) -> None:
    """Put a freshly loaded model and autoencoder where a mode wants them.

    Args:
        model: with ``model.model.embed_tokens``, ``model.model.layers`` and ``model.lm_head``.
            It is on the CPU, or on the device where it was quantized.
        device: where everything is computed, words' embeddings and lm_head of the offloaded modes aside.
        vae_on_cpu: the autoencoder stays on the CPU for good.
    """
    inner = model.model
    if vae_on_cpu or offload is not Offload.MODEL:
        vae.to(CPU if vae_on_cpu else device)
    if offload is Offload.MODEL:
        model_offload([model] if vae_on_cpu else [model, vae], device)
    elif offload is Offload.NONE:
        model.to(device)
    else:
        # embeddings and lm_head on the CPU, and with SEQUENTIAL the blocks; everything else on the device
        blocks = list(inner.layers) if offload is Offload.SEQUENTIAL else []
        keep_on_cpu(inner.embed_tokens)
        keep_on_cpu(model.lm_head)
        for child in _others(model, {inner.embed_tokens, model.lm_head, *blocks}):
            child.to(device)
        _move_own(model, device)
        _move_own(inner, device)
        if blocks:
            sequential_offload(blocks, device)


def _others(model: nn.Module, kept: set[nn.Module]) -> Iterator[nn.Module]:
    """The largest modules that hold none of the ``kept``."""
    for child in model.children():
        if child in kept:
            continue
        if kept.isdisjoint(child.modules()):
            yield child
        else:
            yield from _others(child, kept)


def _move_own(module: nn.Module, device: torch.device) -> None:
    """The parameters that are in none of its children."""
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.to(device)


def keep_on_cpu(module: nn.Module) -> None:
    """The module works on the CPU; what comes in is fetched, what goes out returns to where the input was."""
    module.to(CPU)
    add_hook_to_module(module, AlignDevicesHook(execution_device=CPU, io_same_device=True))


class ExclusiveDeviceHook(ModelHook):
    """Before its module works, the others leave the device and it moves in."""

    def __init__(self, device: torch.device) -> None:
        self.execution_device = device
        self.here = False
        self.module: nn.Module | None = None
        self.others: list[ExclusiveDeviceHook] = []

    def init_hook(self, module: nn.Module) -> nn.Module:
        """The module starts on the CPU."""
        self.module = module
        return module.to(CPU)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The module and what is given to it come to the device."""
        if not self.here:
            for other in self.others:
                other.leave()
            module.to(self.execution_device)
            self.here = True
        return send_to_device(args, self.execution_device), send_to_device(kwargs, self.execution_device)

    def leave(self) -> None:
        """The module goes back to the CPU, and its memory to the driver."""
        if self.here and self.module is not None:
            self.module.to(CPU)
            self.here = False
            empty_cache(self.execution_device)


def model_offload(modules: Sequence[nn.Module], device: torch.device) -> None:
    """Only the module that works is on the device."""
    hooks = [ExclusiveDeviceHook(device) for _ in modules]
    for module, hook in zip(modules, hooks, strict=True):
        hook.others = [other for other in hooks if other is not hook]
        add_hook_to_module(module, hook)


# -- blocks, one after the other


def _places(block: nn.Module) -> dict[str, Place]:
    """How to read and to replace every tensor of a block, the scales of 4-bit matrices included, by name."""
    places: dict[str, Place] = {}
    for name, parameter in block.named_parameters():
        places[name] = _place(parameter, "data")
        # a 4-bit matrix's scales, and with double quantization the scales of those
        state = getattr(parameter, "quant_state", None)
        for prefix, holder in (("", state), ("state2.", getattr(state, "state2", None))):
            for key, value in vars(holder).items() if holder is not None else ():
                if isinstance(value, Tensor):
                    places[f"{name}.{prefix}{key}"] = _place(holder, key)
    return places


def _place(holder: Any, key: str) -> Place:
    return partial(getattr, holder, key), partial(setattr, holder, key)


class BlockStreamer:
    """Copies a block's tensors into one of a few buffers on the device; on CUDA, by a stream, ahead of time.

    Args:
        device: where blocks work.
        blocks: in the order they are used; those of the same shapes share buffers.
    """

    def __init__(self, device: torch.device, blocks: Sequence[nn.Module]) -> None:
        self.device = device
        self.places = [_places(block) for block in blocks]
        # the tensors in main memory, where blocks stay; pinned ones are copied while the device computes
        pinned = device.type == "cuda"
        self.homes: list[dict[str, Tensor]] = []
        for places in self.places:
            home = {name: read().to(CPU) for name, (read, _) in places.items()}
            self.homes.append({name: value.pin_memory() if pinned else value for name, value in home.items()})
        for index in range(len(blocks)):
            self.unload(index)
        # names, shapes and dtypes: blocks of the same kind share buffers
        self.kinds = [
            tuple((name, tuple(v.shape), v.dtype) for name, v in home.items()) for home in self.homes
        ]
        self.buffers: dict[tuple, list[dict[str, Tensor]]] = {}
        self.arriving: dict[int, tuple[dict[str, Tensor], Any]] = {}
        self.side = torch.cuda.Stream(device) if pinned else None

    def load(self, index: int) -> None:
        """Block ``index`` is on the device when this returns (in stream order), the next one on its way."""
        if index not in self.arriving:
            self.fetch(index)
        buffer, event = self.arriving.pop(index)
        if event is not None:
            event.wait(torch.cuda.current_stream(self.device))
        for name, (_, write) in self.places[index].items():
            write(buffer[name])
        self.fetch((index + 1) % len(self.homes))

    def fetch(self, index: int) -> None:
        """Start copying block ``index``; a block on its way to another place than wanted is dropped."""
        if index in self.arriving:
            return
        # a buffer of this block's shapes: a new one while there are few, else the one used longest ago
        buffers = self.buffers.setdefault(self.kinds[index], [])
        if len(buffers) < BUFFERS:
            home = self.homes[index]
            buffer = {name: torch.empty_like(value, device=self.device) for name, value in home.items()}
        else:
            buffer = buffers.pop(0)
            self.arriving = {i: (b, e) for i, (b, e) in self.arriving.items() if b is not buffer}
        buffers.append(buffer)
        event = None
        if self.side is not None:
            # the copy waits until the buffer's last block has been used
            self.side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.side):
                self._copy(index, buffer)
            event = self.side.record_event()
        else:
            self._copy(index, buffer)
        self.arriving[index] = (buffer, event)

    def _copy(self, index: int, buffer: dict[str, Tensor]) -> None:
        for name, value in self.homes[index].items():
            buffer[name].copy_(value, non_blocking=True)

    def unload(self, index: int) -> None:
        """The block's own tensors are those in main memory again."""
        for name, (_, write) in self.places[index].items():
            write(self.homes[index][name])


class StreamedBlockHook(ModelHook):
    """A block that is on the device only while it works."""

    def __init__(self, streamer: BlockStreamer, index: int) -> None:
        self.streamer = streamer
        self.index = index

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:  # noqa: ARG002
        """The block comes to the device."""
        self.streamer.load(self.index)
        return args, kwargs

    def post_forward(self, module: nn.Module, output: Any) -> Any:  # noqa: ARG002
        """The block leaves the device."""
        self.streamer.unload(self.index)
        return output


def sequential_offload(blocks: Sequence[nn.Module], device: torch.device) -> None:
    """Blocks stay in main memory and pass through two buffers of each shape on the device."""
    streamer = BlockStreamer(device, blocks)
    for index, block in enumerate(blocks):
        add_hook_to_module(block, StreamedBlockHook(streamer, index))
