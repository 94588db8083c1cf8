"""Free memory in, the best legal plan out; and when nothing fits, the cheapest change that would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from quantization.memory import Costs, Decoder, Model, Request, costs
from quantization.modes import (
    Decode,
    Device,
    Guidance,
    Hardware,
    Mode,
    Offload,
    Precision,
    Preference,
    Weights,
    legal_modes,
    objections,
)

ROOM = 0.06  # of the whole: allocator fragments and kernels' work space
CONTEXT_BYTES = 500 * 2**20  # a CUDA process before its first tensor
FRAMES = (49, 41, 33, 25, 17, 9, 1)
SHRINK = (1.0, 0.75, 0.5, 0.25)
SHORT_CHAT = 1024  # tokens


@dataclass(frozen=True)
class Plan:
    """A mode, what it costs for a request, and why it was chosen, in words."""

    mode: Mode
    request: Request
    costs: Costs
    needed_bytes: int
    why: str = ""


@dataclass(frozen=True)
class Refusal:
    """Nothing fits, or nothing is legal: why, the cheapest change that would help (None: none would), and advice in words."""

    reason: str
    change: Request | None
    advice: str

    def __str__(self) -> str:
        return f"{self.reason} {self.advice}".strip()


# how much longer everything takes than with full weights on the device, and how much of the quality is lost; rough: they
# only put modes in an order. Figures: bitsandbytes int8 needs about twice the time of bf16, nf4 about the same
_SLOWER: dict[Enum, float] = {
    Weights.INT8: 0.8,
    Weights.NF4: 0.05,
    Weights.NF4_DOUBLE: 0.06,
    Offload.EMBEDDINGS: 0.03,
    Offload.PARTS: 0.15,
    Offload.BLOCKS: 1.5,
    Decode.TILED: 0.05,
    Decode.CPU: 2.0,
    Guidance.ONE_AT_A_TIME: 0.04,
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


def slowness(mode: Mode, device: Device) -> float:
    """How much longer everything takes, as a fraction."""
    tiles = SEAMS * 4 * SMALLEST_TILE / (mode.tile.height * mode.tile.width) if mode.decode is Decode.TILED else 0.0
    full = 1.0 if mode.precision is Precision.FP32 and device is not Device.CPU else 0.0
    unpacking = 0.0
    if mode.weights.four_bit and device is Device.CPU:  # only bfloat16 has a product that reads 4 bits directly
        unpacking = 0.5 if mode.precision is Precision.BF16 else 3.0
    ways: tuple[Enum, ...] = (mode.weights, mode.offload, mode.decode, mode.guidance)
    return sum(_SLOWER.get(way, 0.0) for way in ways) + tiles + full + unpacking


def lost(mode: Mode) -> float:
    """How much quality is lost, as a rank."""
    return _LOST.get(mode.weights, 0.0) + _LOST.get(mode.precision, 0.0)


def needed(cost: Costs, hardware: Hardware) -> int:
    """Bytes of free device memory a plan asks for, fragments and the process's own included."""
    context = CONTEXT_BYTES if hardware.device is Device.CUDA else 0
    return round(cost.peak * (1 + ROOM)) + context


def fits(plan: Plan, hardware: Hardware) -> bool:
    """Whether device and main memory are enough."""
    if hardware.device is Device.CPU:
        return plan.needed_bytes <= hardware.host_free_bytes
    return plan.needed_bytes <= hardware.free_bytes and plan.costs.host <= hardware.host_free_bytes


class Planner:
    """Plans for one model on one machine.

    Args:
        model, decoder: what runs.
        hardware: where.
        preference: the one word.
        fixed: values of :class:`Mode` that people insist on.
    """

    def __init__(
        self, model: Model, decoder: Decoder, hardware: Hardware, preference: Preference = Preference.AUTO, **fixed: Any
    ) -> None:
        self.model, self.decoder, self.hardware = model, decoder, hardware
        self.preference, self.fixed = preference, fixed
        self.modes = [mode for mode in legal_modes(hardware) if self._wanted(mode)]

    def _wanted(self, mode: Mode) -> bool:
        if self.preference is Preference.QUALITY and "weights" not in self.fixed and mode.weights is not Weights.FULL:
            return False
        if self.preference is Preference.BALANCED and "weights" not in self.fixed and not mode.weights.four_bit:
            return False
        return all(getattr(mode, name) == value for name, value in self.fixed.items())

    def plans(self, request: Request) -> Iterator[Plan]:
        """One for every mode that is legal and wanted, whether it fits or not."""
        for mode in self.modes:
            cost = costs(self.model, self.decoder, mode, request)
            yield Plan(mode, request, cost, needed(cost, self.hardware))

    def plan(self, request: Request) -> Plan | Refusal:
        """The best that fits, or why there is none and what would help."""
        made = list(self.plans(request))
        if not made:
            return self._nothing_legal()
        fitting = [one for one in made if fits(one, self.hardware)]
        if not fitting:
            return self._nothing_fits(request, made)
        best = min(fitting, key=self.rank)
        return replace(best, why=self._why(best, made))

    def plan_or_less(self, request: Request) -> Plan | Refusal:
        """The best plan for the request, else for the nearest smaller one."""
        answer = self.plan(request)
        if isinstance(answer, Refusal) and answer.change is not None:
            return self.plan(answer.change)
        return answer

    def rank(self, one: Plan) -> tuple[float, ...]:
        """Smaller is better."""
        slow, worse = slowness(one.mode, self.hardware.device), lost(one.mode)
        if self.preference is Preference.QUALITY:
            return worse, slow, one.needed_bytes
        if self.preference is Preference.LOW:
            return one.needed_bytes + one.costs.host / 100, slow, worse
        return slow + 3 * worse, one.needed_bytes

    def smaller(self, plan: Plan, job: str, changeable: set[str]) -> Plan | None:
        """The next plan that saves at least a tenth of what can be saved in one job; None when nothing can.

        Args:
            job: ``"chat"``, ``"denoise"`` or ``"decode"``.
            changeable: values of the mode that can change while running.
        """
        same = {name: value for name, value in vars(plan.mode).items() if name not in changeable}
        near = [one for one in self.plans(plan.request) if all(getattr(one.mode, name) == value for name, value in same.items())]
        now = getattr(plan.costs, job)
        least = min((getattr(one.costs, job) for one in near), default=now)
        enough = now - 0.1 * (now - least)
        return min((one for one in near if getattr(one.costs, job) <= enough < now), key=self.rank, default=None)

    def _nothing_legal(self) -> Refusal:
        chosen = {"weights": Weights.NF4_DOUBLE} if self.preference is Preference.BALANCED else {}
        mode = replace(Mode(precision=self._usual_precision()), **{**chosen, **self.fixed})
        return Refusal(" ".join(objections(mode, self.hardware)), None, "Or leave the choice to --memory auto.")

    def _usual_precision(self) -> Precision:
        if self.hardware.device is Device.CPU:
            return Precision.FP32
        return Precision.BF16 if self.hardware.bf16 else Precision.FP16

    def _nothing_fits(self, request: Request, made: list[Plan]) -> Refusal:
        least = min(made, key=lambda one: one.needed_bytes)
        on_host = self.hardware.device is Device.CPU or least.needed_bytes <= self.hardware.free_bytes
        where, free = (
            ("main memory", self.hardware.host_free_bytes) if on_host else (self.hardware.name, self.hardware.free_bytes)
        )
        wanted = least.needed_bytes if self.hardware.device is Device.CPU or not on_host else least.costs.host
        reason = f"{said(request)} need {gib(wanted)} ({least.mode.describe()}), and {where} has {gib(free)} free."
        change = self.change_that_fits(request)
        if change is not None:
            return Refusal(reason, change, f"{said(change)} would fit.")
        freer = " or leave the choice to --memory auto" if self.fixed or self.preference is not Preference.AUTO else ""
        place = "a machine with more memory" if on_host else "--memory cpu, or a card with more memory"
        return Refusal(reason, None, f"No smaller clip fits either; use {place}{freer}.")

    def change_that_fits(self, request: Request) -> Request | None:
        """The nearest smaller request that fits: fewer frames first, then a smaller picture, then a shorter chat."""
        for chat in sorted({request.chat_tokens, min(request.chat_tokens, SHORT_CHAT)}, reverse=True):
            for share in SHRINK:
                height, width = (max(16, round(side * share) // 16 * 16) for side in (request.height, request.width))
                for frames in (number for number in FRAMES if number <= request.frames):
                    other = replace(request, frames=frames, height=height, width=width, chat_tokens=chat)
                    if other != request and any(fits(one, self.hardware) for one in self.plans(other)):
                        return other
        return None

    def _why(self, best: Plan, made: list[Plan]) -> str:
        """Why not something better, in a sentence."""
        free = self.hardware.host_free_bytes if self.hardware.device is Device.CPU else self.hardware.free_bytes
        takes = f"It takes {gib(best.needed_bytes)} of {gib(free)} free"
        better = [one for one in made if self.rank(one) < self.rank(best)]
        if not better:
            return f"{takes}; nothing that is allowed here is better."
        nearest = min(better, key=lambda one: one.needed_bytes)
        lacks = gib(nearest.needed_bytes) if nearest.needed_bytes > free else f"{gib(nearest.costs.host)} of main memory"
        return f"{takes}; {nearest.mode.describe()} would be better but takes {lacks}."


def said(request: Request) -> str:
    """A request in words."""
    clip = f"{request.frames} frames" if request.frames > 1 else "A picture"
    return f"{clip} of {request.height}x{request.width} and a chat of {request.chat_tokens} tokens"


def gib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.0f} MiB"
