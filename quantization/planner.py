"""Free memory in, the best legal plan out; and when nothing fits, the cheapest change that would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import Enum
from itertools import product
from typing import Any

from core.geometry import SIDE_STEP
from quantization.memory import Costs, Decoder, Model, Workload, costs
from quantization.modes import (
    Decode,
    Device,
    ExecutionMode,
    Guidance,
    Hardware,
    MemoryPreference,
    Offload,
    Precision,
    Weights,
    emulates,
    legal_modes,
    violations,
)

MARGIN = 0.06  # of the whole: allocator fragments and kernels' work space
# of what decoding holds beside the weights, on CUDA: its tensors are large and of many sizes.
# A capped H100 ran out of memory with .61 of it to spare (24 GB, tiles of 240x360), and did not with .84
# (8 GB, tiles of 144x240)
DECODE_MARGIN = 0.75
CONTEXT_BYTES = 500 * 2**20  # a CUDA process before its first tensor
FRAMES = (49, 41, 33, 25, 17, 9, 1)
SHRINK = (1.0, 0.75, 0.5, 0.25)
SHORT_CHAT = 1024  # tokens


@dataclass(frozen=True)
class Plan:
    """A mode, what it costs for a workload, and why it was chosen, in words."""

    mode: ExecutionMode
    workload: Workload
    costs: Costs
    needed_bytes: int
    why: str = ""


@dataclass(frozen=True)
class Infeasible:
    """Nothing fits, or nothing is legal.

    Args:
        reason: why, a sentence.
        change: the cheapest change that would help; None: none would.
        advice: what to do, a sentence.
    """

    reason: str
    change: Workload | None
    advice: str

    def __str__(self) -> str:
        return f"{self.reason} {self.advice}".strip()


# How much longer everything takes than with full weights on the device, and how much of the quality is lost.
# Rough: they only put modes in an order.
# Measured on an H100 at 49 frames: a step takes 2.56 s full, 4.83 in int8, 2.65 in nf4; one branch at a time
# costs 1 %. So nf4 comes before int8, although int8 is closer to full weights: both answer equally well.
_SLOWER: dict[Enum, float] = {
    Weights.INT8: 0.9,
    Weights.NF4: 0.05,
    Weights.NF4_DOUBLE: 0.06,
    Offload.EMBEDDINGS: 0.03,
    Offload.MODEL: 0.15,
    Offload.SEQUENTIAL: 1.5,
    Decode.TILED: 0.05,
    Decode.CPU: 2.0,
    Guidance.ONE_AT_A_TIME: 0.01,
}
_LOST: dict[Enum, float] = {
    Weights.INT8: 0.01,
    Weights.NF4: 0.1,
    Weights.NF4_DOUBLE: 0.1,
    Precision.BF16: 0.0005,
    Precision.FP16: 0.001,
}
SEAMS = 0.01  # what tiles half a frame wide cost in quality and time, in the same units
SMALLEST_TILE = 96 * 160


def slowness(mode: ExecutionMode, device: Device) -> float:
    """How much longer everything takes, as a fraction."""
    ways: tuple[Enum, ...] = (mode.weights, mode.offload, mode.decode, mode.guidance)
    slower = sum(_SLOWER.get(way, 0.0) for way in ways)
    if mode.decode is Decode.TILED:
        slower += SEAMS * 4 * SMALLEST_TILE / (mode.tile.height * mode.tile.width)
    if mode.precision is Precision.FP32 and device is not Device.CPU:
        slower += 1.0
    if (
        mode.weights.four_bit and device is Device.CPU
    ):  # only bfloat16 has a product that reads 4 bits directly
        slower += 0.5 if mode.precision is Precision.BF16 else 3.0
    return slower


def lost(mode: ExecutionMode) -> float:
    """How much quality is lost, as a rank."""
    return _LOST.get(mode.weights, 0.0) + _LOST.get(mode.precision, 0.0)


def needed(cost: Costs, hardware: Hardware) -> int:
    """Bytes of free device memory a plan asks for, fragments and the process's own included."""
    wanted = cost.peak * (1 + MARGIN)
    if hardware.device is not Device.CUDA:
        return round(wanted)
    return round(max(wanted, cost.decode + DECODE_MARGIN * cost.decoding)) + CONTEXT_BYTES


def fits(plan: Plan, hardware: Hardware) -> bool:
    """Whether device and main memory are enough."""
    return plan.needed_bytes <= hardware.free_bytes and plan.costs.host <= hardware.host_free_bytes


class Planner:
    """Plans for one model on one machine.

    Args:
        model, decoder: what runs.
        hardware: where.
        preference: the one word.
        fixed: values of :class:`ExecutionMode` that people insist on.
    """

    def __init__(
        self,
        model: Model,
        decoder: Decoder,
        hardware: Hardware,
        preference: MemoryPreference = MemoryPreference.AUTO,
        **fixed: Any,
    ) -> None:
        self.model = model
        self.decoder = decoder
        self.hardware = hardware
        self.preference = preference
        self.fixed = fixed
        self.modes = [mode for mode in legal_modes(hardware) if self._wanted(mode)]

    def _wanted(self, mode: ExecutionMode) -> bool:
        """Whether a mode is what people insist on, and where they do not, what they prefer."""
        if "weights" not in self.fixed:
            if self.preference is MemoryPreference.QUALITY and mode.weights.four_bit:
                return False
            if self.preference is MemoryPreference.BALANCED and not mode.weights.four_bit:
                return False
        return all(getattr(mode, name) == value for name, value in self.fixed.items())

    def plans(self, workload: Workload) -> Iterator[Plan]:
        """One for every mode that is legal and wanted, whether it fits or not."""
        for mode in self.modes:
            cost = costs(self.model, self.decoder, mode, workload, cpu=self.hardware.device is Device.CPU)
            yield Plan(mode, workload, cost, needed(cost, self.hardware))

    def plan(self, workload: Workload) -> Plan | Infeasible:
        """The best that fits, or why there is none and what would help."""
        made = list(self.plans(workload))
        if not made:
            return self._nothing_legal()
        fitting = [one for one in made if fits(one, self.hardware)]
        if not fitting:
            return self._nothing_fits(workload, made)
        best = min(fitting, key=self.rank)
        return replace(best, why=self._why(best, made))

    def plan_or_less(self, workload: Workload) -> Plan | Infeasible:
        """The best plan for the workload, else for the nearest smaller one."""
        answer = self.plan(workload)
        if isinstance(answer, Infeasible) and answer.change is not None:
            return self.plan(answer.change)
        return answer

    def rank(self, one: Plan) -> tuple[float, ...]:
        """What plans are ordered by; the smallest is the best, and emulation the last resort."""
        last = emulates(one.mode, self.hardware)
        slow = slowness(one.mode, self.hardware.device)
        worse = lost(one.mode)
        if self.preference is MemoryPreference.QUALITY:
            return last, worse, slow, one.needed_bytes
        if self.preference is MemoryPreference.LOW:
            return last, one.needed_bytes + one.costs.host / 100, slow, worse
        return last, slow + 3 * worse, one.needed_bytes

    def smaller(self, plan: Plan, job: str, changeable: set[str]) -> Plan | None:
        """The next plan that saves at least a tenth of what can be saved in one job; None when nothing can.

        Args:
            job: ``"chat"``, ``"denoise"`` or ``"decode"``.
            changeable: values of the mode that can change while running.
        """
        # the plans that differ in nothing else
        kept = [field.name for field in fields(plan.mode) if field.name not in changeable]
        near = [
            one
            for one in self.plans(plan.workload)
            if all(getattr(one.mode, name) == getattr(plan.mode, name) for name in kept)
        ]
        now = getattr(plan.costs, job)
        least = min((getattr(one.costs, job) for one in near), default=now)
        enough = now - 0.1 * (now - least)
        return min(
            (one for one in near if getattr(one.costs, job) <= enough < now), key=self.rank, default=None
        )

    def _nothing_legal(self) -> Infeasible:
        chosen = {"weights": Weights.NF4_DOUBLE} if self.preference is MemoryPreference.BALANCED else {}
        mode = replace(ExecutionMode(precision=self._usual_precision()), **{**chosen, **self.fixed})
        return Infeasible(
            " ".join(violations(mode, self.hardware)), None, "Or leave the choice to --memory auto."
        )

    def _usual_precision(self) -> Precision:
        if self.hardware.device is Device.CPU:
            return Precision.FP32
        return Precision.BF16 if self.hardware.bf16 else Precision.FP16

    def _nothing_fits(self, workload: Workload, made: list[Plan]) -> Infeasible:
        least = min(made, key=lambda one: one.needed_bytes)
        # which memory lacks: the device's, or main memory beside it
        wanted = least.needed_bytes
        free = self.hardware.free_bytes
        fits_device = wanted <= free
        if fits_device:
            wanted = least.costs.host
            free = self.hardware.host_free_bytes
        on_host = fits_device or self.hardware.device is Device.CPU
        where = "main memory" if on_host else self.hardware.name
        takes = f"{format_bytes(wanted)} ({least.mode.describe()})"
        reason = f"{describe(workload)} need {takes}, and {where} has {format_bytes(free)} free."
        change = self.change_that_fits(workload)
        if change is not None:
            return Infeasible(reason, change, f"{describe(change)} would fit.")
        insists = self.fixed or self.preference is not MemoryPreference.AUTO
        freer = " or leave the choice to --memory auto" if insists else ""
        place = "a machine with more memory" if on_host else "--memory cpu, or a card with more memory"
        return Infeasible(reason, None, f"No smaller clip fits either; use {place}{freer}.")

    def change_that_fits(self, workload: Workload) -> Workload | None:
        """The nearest smaller workload that fits.

        Fewer frames are tried first, then a smaller picture, then a shorter chat.
        """
        clip = workload.clip
        lengths = [number for number in FRAMES if number <= clip.num_frames]
        chats = sorted({workload.chat_tokens, min(workload.chat_tokens, SHORT_CHAT)}, reverse=True)
        for chat_tokens, share, num_frames in product(chats, SHRINK, lengths):
            height = _shrunk(clip.height, share)
            width = _shrunk(clip.width, share)
            other = Workload(replace(clip, num_frames=num_frames, height=height, width=width), chat_tokens)
            if other != workload and any(fits(one, self.hardware) for one in self.plans(other)):
                return other
        return None

    def _why(self, best: Plan, made: list[Plan]) -> str:
        """Why not something better, in a sentence."""
        free = self.hardware.free_bytes
        takes = f"It takes {format_bytes(best.needed_bytes)} of {format_bytes(free)} free"
        better = [one for one in made if self.rank(one) < self.rank(best)]
        if not better:
            return f"{takes}; nothing that is allowed here is better."
        nearest = min(better, key=lambda one: one.needed_bytes)
        lacks = format_bytes(nearest.needed_bytes)
        if nearest.needed_bytes <= free:
            lacks = f"{format_bytes(nearest.costs.host)} of main memory"
        return f"{takes}; {nearest.mode.describe()} would be better but takes {lacks}."


def _shrunk(side: int, share: float) -> int:
    """A share of an edge in pixels, as the legal edge below it."""
    return max(SIDE_STEP, round(side * share) // SIDE_STEP * SIDE_STEP)


def describe(workload: Workload) -> str:
    """A workload in words for people, such as "9 frames of 480x720 and a chat of 4096 tokens"."""
    clip = workload.clip
    what = f"{clip.num_frames} frames" if clip.num_frames > 1 else "A picture"
    return f"{what} of {clip.height}x{clip.width} and a chat of {workload.chat_tokens} tokens"


def format_bytes(size: int) -> str:
    """Bytes for people: in GiB, below a tenth of one in MiB."""
    if size >= 2**30 / 10:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.0f} MiB"
