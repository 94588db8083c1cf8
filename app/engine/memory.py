"""The one plan the program runs by: made before loading, kept to while running, told on the page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app.formatting import duration
from app.settings import Settings
from core.devices import resolve_device
from core.errors import QuantizationError, RequestError
from core.pipelines.decoding import DecodeStep
from core.pipelines.guidance import Guidance
from core.pipelines.text_to_video import text_to_video
from core.requests import VideoRequest
from core.weights import LoadOptions, read_config, read_profile, resolve_checkpoint
from quantization import apply, hardware
from quantization.bnb import fixed_weights, quantization_config, stored_dtype, stored_weights
from quantization.files import export_seconds
from quantization.memory import Costs, Decoder, Model, Workload
from quantization.modes import Decode, Device, ExecutionMode, MemoryPreference, Offload, Precision, Weights
from quantization.planner import Infeasible, Plan, Planner, format_bytes
from quantization.speed import ThroughputEstimator, step_operations

if TYPE_CHECKING:
    from core import HaploOmni
    from core.pipelines.out_of_memory import MemoryPhase

Step = TypeVar("Step")
TILINGS = {"off": Decode.WHOLE, "on": Decode.TILED}
WARM_UP_STEPS = 2  # steps: the first also reads the prompt
QUICK = 1e11  # operations of a step that a CPU does in seconds
CHAT_TOKENS = 4096  # a talk that must always fit
FEWEST_CHATS = 2
MOST_CHATS = 16


@dataclass(frozen=True)
class Estimate:
    """What a clip will take, before it is made.

    Args:
        text: for people.
        fits: whether it can be made here.
        change: the cheapest request that fits, where this one does not.
    """

    text: str
    fits: bool
    change: VideoRequest | None = None


@dataclass(frozen=True)
class MemoryUsage:
    """What memory the loaded model takes and what is left, in bytes; how it is held and where, in words."""

    weights_bytes: int
    held: str
    cache_bytes: int  # of a thousand tokens
    free_bytes: int
    total_bytes: int
    device: str


class MemoryManager:
    """Holds the plan, adapts it to every clip and to memory that runs out, and says what things take.

    Args:
        planner: of the loaded model on this machine.
        plan: what it is held by.
        device: where it works.
        folder: of the checkpoint.
    """

    def __init__(self, planner: Planner, plan: Plan, device: Any, folder: Path) -> None:
        self.planner = planner
        self.plan = plan
        self.device = device
        self.folder = folder
        self.throughput = ThroughputEstimator()
        self.stored = stored_weights(folder)
        self.export_s = export_seconds(folder)
        self._omni: HaploOmni | None = None
        self._applied: Plan | None = None

    @property
    def mode(self) -> ExecutionMode:
        """How things run now."""
        return self.plan.mode

    @property
    def dtype(self) -> str:
        """PyTorch's name of the precision."""
        return self.mode.precision.dtype_name

    def load_options(self) -> LoadOptions:
        """What the loader is told."""
        config = self.planner.model.config
        dispatch = partial(apply.dispatch, self.mode)
        if self.stored is not Weights.FULL:
            return LoadOptions(None, apply.load_device(self.mode, self.device), dispatch)
        # weights of another precision are quantized as they are read:
        # all of them in the wanted one may not fit main memory
        if apply.quantizes_on_dispatch(self.mode, self.device) and stored_dtype(self.folder) == self.dtype:
            return LoadOptions(None, None, dispatch)
        how = quantization_config(config, self.mode.weights, self.mode.precision)
        return LoadOptions(how, apply.load_device(self.mode, self.device), dispatch)

    def attach(self, omni: HaploOmni) -> None:
        """Keep this loaded model's memory."""
        self._omni = omni
        self._run(self.plan)
        omni.on_out_of_memory = self.on_out_of_memory

    def loaded(self, seconds: float) -> str:
        """What to say of the time that loading took."""
        line = f"loaded in {seconds:.0f} s: {self.mode.describe()}"
        if self.export_s is not None:
            return f"{line}; quantizing first would have taken about {self.export_s:.0f} s more"
        if self.mode.weights is not Weights.FULL:
            command = f"python -m quantization.export --weights {self.mode.weights.value}"
            return f"{line}; {command} makes later starts much faster"
        return line

    def on_out_of_memory(self, phase: MemoryPhase) -> str | None:
        """Memory ran out: go on with the next smaller plan, if there is one, and say which."""
        job = phase.name.lower()
        smaller = self.planner.smaller(self.plan, job, apply.CHANGEABLE[job])
        if smaller is None:
            return None
        self._run(smaller)
        return smaller.mode.describe()

    def plan_for(self, clip: VideoRequest) -> Plan:
        """The best plan for this clip.

        Raises:
            RequestError: it cannot fit; says what would.
        """
        answer = self._plan_for(clip)
        if isinstance(answer, Infeasible):
            raise RequestError(str(answer))
        return answer

    def by_plan(self, plan: Plan, steps: Iterator[Step]) -> Iterator[Step]:
        """Take steps by a plan of their own, and leave the model between them as it was found.

        How things run belongs to whose turn it is: others may run between two steps.
        When memory runs out in one of them, the rest goes on by the smaller plan.
        """
        try:
            while True:
                usual = self.plan
                self._run(plan)
                try:
                    step = next(steps)
                except StopIteration:
                    return
                finally:
                    plan = self.plan
                    self._run(self._still_possible(usual))
                yield step
        finally:
            getattr(steps, "close", lambda: None)()

    def warm_up(self, omni: HaploOmni) -> Iterator[None]:
        """A clip of two steps that nobody sees, so that even the first one's time can be told."""
        planned = self.plan.workload.clip
        clip = omni.video_request(
            "a clip",
            height=planned.height,
            width=planned.width,
            num_frames=planned.num_frames,
            num_inference_steps=WARM_UP_STEPS,
        )
        moments = []
        for item in text_to_video(omni, clip):
            if not isinstance(item, DecodeStep):
                moments.append(time.monotonic())
            yield
        *_, before, denoised, decoded = moments
        self.record_timing(clip, denoised - before, decoded - denoised)

    @property
    def can_warm_up(self) -> bool:
        """Whether that takes seconds: a CPU needs minutes for large models."""
        return (
            self.planner.hardware.device is not Device.CPU
            or step_operations(self.planner.model, self.plan.workload.clip) < QUICK
        )

    def record_timing(self, clip: VideoRequest, step_s: float, decode_s: float) -> None:
        """A clip took ``step_s`` seconds a step and ``decode_s`` to decode."""
        self.throughput.record_timing(self.planner.model, clip, step_s, decode_s)

    def expected_s(self, clip: VideoRequest) -> tuple[float | None, float | None]:
        """Seconds that a clip and one of its steps will take alone; None before the first clip."""
        whole = self.throughput.expected_s(self.planner.model, clip)
        return whole, None if whole is None else whole / clip.num_inference_steps

    def estimate(self, clip: VideoRequest) -> Estimate:
        """What a clip would take now."""
        answer = self._plan_for(clip)
        if isinstance(answer, Infeasible):
            change = None if answer.change is None else answer.change.clip
            return Estimate(str(answer), False, change)
        seconds = self.throughput.expected_s(self.planner.model, clip)
        time = (
            "time: known after the first clip" if seconds is None else f"about {duration(max(1.0, seconds))}"
        )
        return Estimate(f"Takes {format_bytes(working(answer.costs))} of working memory; {time}.", True)

    def usage(self) -> MemoryUsage:
        """Weights, cache and free memory now."""
        autoencoder = Precision.FP32 if self.planner.hardware.device is Device.CPU else self.mode.precision
        size = sum(self.planner.model.weight_bytes(self.mode.weights, self.mode.precision).values())
        size += self.planner.decoder.num_elements * autoencoder.size_bytes
        cache = 1000 * self.planner.model.kv_elements_per_token * self.mode.precision.size_bytes
        now = hardware.detect(self.device)
        free = now.host_free_bytes if now.device is Device.CPU else now.free_bytes
        return MemoryUsage(size, self.mode.describe(), cache, free, now.total_bytes, now.name)

    def chat_places(self) -> int:
        """How many chats run at once: as many as whose caches fit a fourth of what is free, 2 to 16."""
        usage = self.usage()
        cache_bytes = usage.cache_bytes * CHAT_TOKENS / 1000
        return max(FEWEST_CHATS, min(MOST_CHATS, int(usage.free_bytes / 4 / cache_bytes)))

    def _plan_for(self, clip: VideoRequest) -> Plan | Infeasible:
        """The best plan for a clip in what memory is free now; no talk goes on meanwhile."""
        mode = self.mode
        held = sum(self.plan.costs.weights.values())
        fixed: dict[str, Any] = {
            "precision": mode.precision,
            "weights": mode.weights,
            "offload": mode.offload,
        }
        if mode.decode is Decode.CPU or "decode" in self.planner.fixed:
            fixed["decode"] = mode.decode
        own = Planner(self.planner.model, self.planner.decoder, hardware.detect(self.device, held), **fixed)
        return own.plan(Workload(clip))

    def _still_possible(self, plan: Plan) -> Plan:
        """``plan``, decoding on the CPU once the autoencoder has gone there: it does not come back."""
        if self.mode.decode is not Decode.CPU:
            return plan
        return replace(plan, mode=replace(plan.mode, decode=Decode.CPU, tile=self.mode.tile))

    def _run(self, plan: Plan) -> None:
        self.plan = plan
        if self._omni is not None and plan is not self._applied:
            self._applied = plan
            apply.apply_runtime(plan.mode, self._omni.model, self._omni.vae)
            self._omni.guidance = Guidance(plan.mode.guidance.value)


def working(costs: Costs) -> int:
    """Bytes beside the weights at the worst moment."""
    return max(0, costs.peak - sum(costs.weights.values()))


def plan_memory(settings: Settings) -> MemoryManager:
    """Decide how the settings' checkpoint will be held here, from its configuration alone.

    Raises:
        HaploOmniError: no such checkpoint or device.
        QuantizationError: what was asked for cannot be done here, or nothing fits; says what can.
    """
    preference = MemoryPreference(settings.memory)
    if preference is MemoryPreference.CPU and settings.device not in ("auto", "cpu"):
        raise QuantizationError(
            f"--memory cpu and --device {settings.device} contradict each other; leave one of them out."
        )
    device = resolve_device("cpu" if preference is MemoryPreference.CPU else settings.device)
    folder = resolve_checkpoint(settings.checkpoint, ["*.json"])
    config = read_config(folder)
    fixed: dict[str, Any] = {**fixed_weights(folder, settings.weights)}
    if settings.dtype != "auto":
        fixed["precision"] = Precision.named(settings.dtype)
    if settings.offload is not None:
        fixed["offload"] = Offload(settings.offload)
    if settings.vae_tiling != "auto":
        fixed["decode"] = TILINGS[settings.vae_tiling]
    machine = hardware.detect(device)
    planner = Planner(Model(config), Decoder.of_checkpoint(folder), machine, preference, **fixed)
    own = read_profile(folder).generation
    chat = min(CHAT_TOKENS, config.max_position_embeddings)
    answer = planner.plan_or_less(Workload.of_size(own.num_frames, own.height, own.width, chat))
    if isinstance(answer, Infeasible):
        raise QuantizationError(str(answer))
    return MemoryManager(planner, answer, device, folder)
