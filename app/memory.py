"""The one plan the program runs by: made before loading, kept to while running, told on the page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.settings import Settings
from app.words import duration
from core.devices import resolve_device
from core.errors import RequestError
from core.pipelines.guidance import Guidance
from core.pipelines.text_to_video import text_to_video
from core.weights import Holding, read_config, read_profile, resolve_checkpoint
from quantization import hardware, running
from quantization.bnb import fixed_weights, quantization_config, stored_weights
from quantization.errors import QuantizationError
from quantization.files import check_finished, export_record
from quantization.memory import Costs, Decoder, Model, Request
from quantization.modes import Decode, Device, Mode, Offload, Precision, Preference, Weights
from quantization.planner import Plan, Planner, Refusal, gib
from quantization.speed import Stopwatch, step_operations

if TYPE_CHECKING:
    from core import HaploOmni
    from core.pipelines.thrift import Work

TILINGS = {"off": Decode.WHOLE, "on": Decode.TILED}
REHEARSED = 2  # steps: the first also reads the prompt
QUICK = 1e11  # operations of a step that a CPU does in seconds
CHAT_TOKENS = 4096  # a talk that must always fit


@dataclass(frozen=True)
class Forecast:
    """What a clip will take, before it is made.

    Args:
        text: for people.
        fits: whether it can be made here.
        change: the cheapest request that fits, where this one does not.
    """

    text: str
    fits: bool
    change: Request | None = None


class MemoryKeeper:
    """Holds the plan, adapts it to every clip and to memory that runs out, and says what things take.

    Args:
        planner: of the loaded model on this machine.
        plan: what it is held by.
        device: where it works.
        folder: of the checkpoint.
    """

    def __init__(self, planner: Planner, plan: Plan, device: Any, folder: Path) -> None:
        self.planner, self.plan, self.device, self.folder = planner, plan, device, folder
        self.stopwatch = Stopwatch()
        self.stored = stored_weights(folder)
        self._omni: HaploOmni | None = None

    @property
    def mode(self) -> Mode:
        """How things run now."""
        return self.plan.mode

    @property
    def dtype(self) -> str:
        """PyTorch's name of the precision."""
        return self.mode.precision.dtype_name

    def holding(self) -> Holding:
        """What the loader is told."""
        config = self.planner.model.config
        how = None if self.stored is not Weights.FULL else quantization_config(config, self.mode.weights, self.mode.precision)
        return Holding(how, running.read_to(self.mode, self.device), partial(running.place, self.mode))

    def attach(self, omni: HaploOmni) -> None:
        """Keep this loaded model's memory."""
        self._omni = omni
        self._run(self.plan)
        omni.relieve = self.relieve

    def loaded(self, seconds: float) -> str:
        """What to say of the time that loading took."""
        said = f"loaded in {seconds:.0f} s: {self.mode.describe()}"
        record = export_record(self.folder)
        if record is not None:
            return f"{said}; quantizing first would have taken about {record['seconds']:.0f} s more"
        if self.mode.weights is not Weights.FULL:
            return f"{said}; python -m quantization.export --weights {self.mode.weights.value} makes later starts much faster"
        return said

    def relieve(self, work: Work) -> str | None:
        """Memory ran out: go on with the next smaller plan, if there is one, and say which."""
        job = work.name.lower()
        smaller = self.planner.smaller(self.plan, job, running.CHANGEABLE[job])
        if smaller is None:
            return None
        self._run(smaller)
        return smaller.mode.describe()

    def prepare(self, clip: Any) -> None:
        """Run by the best plan for this clip (a ``VideoRequest``).

        Raises:
            RequestError: it cannot fit; says what would.
        """
        answer = self._plan_for(request_of(clip.num_frames, clip.height, clip.width, clip.guidance_scale))
        if isinstance(answer, Refusal):
            raise RequestError(str(answer))
        self._run(answer)

    def rehearse(self, omni: HaploOmni) -> Iterator[None]:
        """A clip of two steps that nobody sees, in the engine, so that even the first one's time can be told."""
        planned = self.plan.request
        clip = omni.video_request(
            "a clip", height=planned.height, width=planned.width, num_frames=planned.frames, num_inference_steps=REHEARSED
        )
        moments = []
        for _ in text_to_video(omni, clip):
            moments.append(time.monotonic())
            yield
        *_, before, denoised, decoded = moments
        self.learn(clip, denoised - before, decoded - denoised)

    @property
    def can_rehearse(self) -> bool:
        """Whether that takes seconds: a CPU needs minutes for large models."""
        return self.planner.hardware.device is not Device.CPU or step_operations(self.planner.model, self.plan.request) < QUICK

    def learn(self, clip: Any, step_s: float, decode_s: float) -> None:
        """A clip took so long."""
        request = request_of(clip.num_frames, clip.height, clip.width, clip.guidance_scale)
        self.stopwatch.learn(self.planner.model, request, step_s, decode_s)

    def forecast(self, frames: int, height: int, width: int, steps: int, guidance_scale: float) -> Forecast:
        """What a clip would take now."""
        request = request_of(frames, height, width, guidance_scale)
        answer = self._plan_for(request)
        if isinstance(answer, Refusal):
            return Forecast(str(answer), False, answer.change)
        seconds = self.stopwatch.expected_s(self.planner.model, request, steps)
        time = "time: known after the first clip" if seconds is None else f"about {duration(max(1.0, seconds))}"
        return Forecast(f"Takes {gib(working(answer.costs))} of working memory; {time}.", True)

    def line(self) -> str:
        """Weights, cache and free memory, for the page."""
        size = sum(self.planner.model.weight_bytes(self.mode.weights, self.mode.precision).values())
        cache = 1000 * self.planner.model.cache_numbers * self.mode.precision.size_bytes
        now = hardware.detect(self.device)
        free = now.host_free_bytes if now.device is Device.CPU else now.free_bytes
        return (
            f"**Memory** · weights {gib(size)} ({self.mode.describe()}) · cache {gib(cache)} for 1000 tokens of talk · "
            f"{gib(free)} free of {gib(now.total_bytes)} on {now.name}"
        )

    def _plan_for(self, request: Request) -> Plan | Refusal:
        mode = self.mode
        held = sum(self.plan.costs.weights.values())
        fixed: dict[str, Any] = {"precision": mode.precision, "weights": mode.weights, "offload": mode.offload}
        if mode.decode is Decode.CPU or "decode" in self.planner.fixed:
            fixed["decode"] = mode.decode
        own = Planner(self.planner.model, self.planner.decoder, hardware.detect(self.device, held), **fixed)
        return own.plan(request)

    def _run(self, plan: Plan) -> None:
        self.plan = plan
        if self._omni is not None:
            running.run_as(plan.mode, self._omni.model, self._omni.vae)
            self._omni.guidance = Guidance(plan.mode.guidance.value)


def request_of(frames: int, height: int, width: int, guidance_scale: float) -> Request:
    """What a clip asks of memory; no talk goes on meanwhile."""
    return Request(int(frames), int(height), int(width), chat_tokens=1, guided=guidance_scale > 1)


def working(costs: Costs) -> int:
    """Bytes beside the weights at the worst moment."""
    return costs.peak - sum(costs.weights.values())


def plan_memory(settings: Settings) -> MemoryKeeper:
    """Decide how the settings' checkpoint will be held here, from its configuration alone.

    Raises:
        HaploOmniError: no such checkpoint or device.
        QuantizationError: what was asked for cannot be done here, or nothing fits; says what can.
    """
    preference = Preference(settings.memory)
    if preference is Preference.CPU and settings.device not in ("auto", "cpu"):
        raise QuantizationError(f"--memory cpu and --device {settings.device} contradict each other; leave one of them out.")
    device = resolve_device("cpu" if preference is Preference.CPU else settings.device)
    folder = resolve_checkpoint(settings.checkpoint, ["*.json"])
    check_finished(folder)
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
    own = read_profile(folder)["generation"]
    chat = min(CHAT_TOKENS, config.max_position_embeddings)
    answer = planner.plan_or_less(Request(own["num_frames"], own["height"], own["width"], chat))
    if isinstance(answer, Refusal):
        raise QuantizationError(str(answer))
    return MemoryKeeper(planner, answer, device, folder)
