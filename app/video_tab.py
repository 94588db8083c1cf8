"""Text to video: a form, a preview that sharpens with the steps, and the finished clip."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from app.engine import Engine
from app.errors import sentence
from app.jobs import Ended, Progress, Started, State, Waiting
from app.memory import MemoryKeeper
from app.preview import TEMPLATE, animated, preview_size, view
from app.storage import Storage
from app.words import duration, under_way
from core import DenoiseStep, GeneratedVideo, HaploOmni
from core.pipelines.text_to_video import FRAME_STEP, MAX_GUIDANCE, MAX_SEED, MAX_STEPS, MIN_SIDE, SIDE_STEP, text_to_video

IDLE = "Type a prompt and press Generate: the clip appears here step by step."
START = "Starting"


class VideoTab:
    """Builds the tab and handles its events.

    Args:
        engine: runs the model.
        keeper: plans its memory.
        storage: where finished clips go.
        prompts: example prompts.
    """

    def __init__(self, engine: Engine, keeper: MemoryKeeper, storage: Storage, prompts: list[str]) -> None:
        self.engine, self.keeper, self.storage = engine, keeper, storage
        with gr.Row(equal_height=False, elem_id="video-row"):
            with gr.Column(scale=5, min_width=320, elem_id="video-form"):
                with gr.Column(elem_id="video-ask"):
                    self.prompt = gr.Textbox(
                        label="Prompt", lines=2, placeholder=prompts[0], elem_id="video-prompt", max_length=2000, autofocus=False
                    )
                    with gr.Row(elem_id="generate-row"):
                        self.generate = gr.Button("Generate", variant="primary", elem_id="video-generate")
                        self.stop = gr.Button("Stop", variant="stop", elem_id="video-stop", interactive=False)
                    self.expected = gr.HTML("", elem_id="video-expected")
                    self.fix = gr.Button("", size="sm", variant="primary", visible=False, elem_id="video-fix")
                    gr.Examples([[text] for text in prompts], inputs=[self.prompt], label="Try one", examples_per_page=8)
                with gr.Column(elem_id="video-settings"):
                    self._build_settings()
            with gr.Column(scale=6, min_width=320, elem_id="video-outcome"):
                self._build_outcome()
        self.used_seed, self.fitting = gr.State(None), gr.State(None)
        self._wire()

    def _build_settings(self) -> None:
        own, limits = self.engine.omni.profile["generation"], self.engine.omni.profile["generation_limits"]
        self.negative = gr.Textbox(label="Negative prompt (what to keep away from)", lines=1, max_length=2000)
        sides = {"minimum": MIN_SIDE, "maximum": limits["max_side"], "step": SIDE_STEP}
        with gr.Row():
            self.width = gr.Slider(**sides, value=own["width"], label="Width", elem_id="video-width")
            self.height = gr.Slider(**sides, value=own["height"], label="Height", elem_id="video-height")
        with gr.Row():
            self.frames = gr.Slider(
                1,
                limits["max_frames"],
                own["num_frames"],
                step=FRAME_STEP,
                label="Frames",
                info="8 a second; 1 is a picture",
                elem_id="video-frames",
            )
            self.steps = gr.Slider(
                1,
                MAX_STEPS,
                own["num_inference_steps"],
                step=1,
                label="Steps",
                info="more: finer and slower",
                elem_id="video-steps",
            )
        with gr.Row():
            self.guidance = gr.Slider(
                1,
                min(15, MAX_GUIDANCE),
                own["guidance_scale"],
                step=0.5,
                label="Guidance",
                info="how closely to follow the prompt; 1: not at all",
                elem_id="video-guidance",
            )
            self.seed = gr.Number(0, precision=0, minimum=0, maximum=MAX_SEED, label="Seed", elem_id="video-seed")
        with gr.Row(elem_id="seed-row"):
            self.fresh = gr.Checkbox(True, label="A new seed each time", elem_id="video-fresh", min_width=160)
            self.dice = gr.Button("⚄ Roll a seed", size="sm", min_width=100, elem_id="video-dice")

    def _build_outcome(self) -> None:
        self.preview = gr.HTML(value=view(IDLE), html_template=TEMPLATE, elem_id="preview", label="Preview")
        self.result = gr.Video(
            label="Finished clip",
            elem_id="video-result",
            visible=False,
            interactive=False,
            autoplay=True,
            loop=True,
            buttons=["download"],
        )
        self.picture = gr.Image(
            label="Finished picture", elem_id="picture-result", visible=False, interactive=False, buttons=["download"]
        )
        self.recipe = gr.Markdown("", elem_id="video-recipe")
        self.again = gr.Button("Use this seed again", size="sm", visible=False, elem_id="video-reuse")

    def _wire(self) -> None:
        form = [
            self.prompt,
            self.negative,
            self.height,
            self.width,
            self.frames,
            self.steps,
            self.guidance,
            self.seed,
            self.fresh,
        ]
        outputs = [self.preview, self.result, self.picture, self.recipe, self.again, self.used_seed, self.generate, self.stop]
        private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        self.made = made = gr.on([self.generate.click, self.prompt.submit], self.make, form, outputs, **private)
        # the words come after the cancel, so that no late step can overwrite them
        stopping = self.stop.click(None, cancels=[made], queue=False)
        stopping.then(self.stopped, None, [self.preview, self.generate, self.stop], queue=False, **private)
        self.dice.click(lambda: (secrets.randbelow(MAX_SEED + 1), False), None, [self.seed, self.fresh], queue=False, **private)
        self.again.click(lambda seed: (seed, False), self.used_seed, [self.seed, self.fresh], queue=False, **private)
        size = [self.frames, self.height, self.width]
        self.sized = sized = [*size, self.steps, self.guidance]
        self.told = told = [self.expected, self.fix, self.fitting]
        quick: dict[str, Any] = {"queue": False, "trigger_mode": "always_last", **private}
        gr.on([part.change for part in sized], self.tell, sized, told, **quick)
        made.then(self.tell, sized, told, **quick)
        self.fix.click(lambda fitting: fitting or (gr.skip(),) * 3, self.fitting, size, queue=False, **private)
        gr.api(self.text_to_video, api_name="text_to_video")

    # -- handlers

    def tell(self, frames, height, width, steps, guidance) -> tuple:
        """What a clip of this size will take; when it cannot fit, what can, as a button."""
        if None in (frames, height, width, steps, guidance):
            return "", gr.Button(visible=False), None
        forecast = self.keeper.forecast(frames, height, width, steps, guidance)
        line = f'<p class="{"fits" if forecast.fits else "too-large"}">{escape(forecast.text)}</p>'
        if forecast.change is None:
            return line, gr.Button(visible=False), None
        change = forecast.change
        label = f"Use {change.frames} frame{'s' * (change.frames != 1)} of {change.width} x {change.height}"
        return line, gr.Button(label, visible=True), (change.frames, change.height, change.width)

    async def make(self, prompt, negative, height, width, frames, steps, guidance, seed, fresh) -> AsyncIterator[tuple]:
        """Generate a clip: previews while it denoises, the file at the end. The form stays as it is."""
        running = (gr.Button(interactive=False), gr.Button(interactive=True))
        idle = (gr.Button(interactive=True), gr.Button(interactive=False))
        last = view(f"{START}…", ratio=(width or 1) / (height or 1))
        hidden = (
            gr.Video(value=None, visible=False),
            gr.Image(value=None, visible=False),
            "",
            gr.Button(visible=False),
            gr.skip(),
        )
        yield last, *hidden, *running
        form = {
            "height": height,
            "width": width,
            "num_frames": frames,
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "seed": None if fresh else seed,
        }
        started: float | None = None  # while nothing of the clip is to be seen
        try:
            async with aclosing(self.engine.stream(lambda omni: self._work(omni, prompt, negative, form))) as events:
                async for event in events:
                    if isinstance(event, Started) or (isinstance(event, Waiting) and event.ahead):
                        started = time.monotonic() if isinstance(event, Started) else None
                        last = {**last, "text": str(event) if started is None else f"{START}…"}
                        yield last, *(gr.skip(),) * 7
                    elif isinstance(event, Progress) and isinstance(event.value, dict):
                        started, last = None, event.value
                        yield last, *(gr.skip(),) * 7
                    elif isinstance(event, Progress):
                        yield *self._finished(event.value, last), *idle
                    elif isinstance(event, Ended) and event.state is State.FAILED and event.error is not None:
                        raise event.error
                    elif event is None:
                        waited = gr.skip() if started is None else {**last, "text": under_way(START, started)}
                        yield waited, *(gr.skip(),) * 7
        except Exception as error:
            said = sentence(error)
            yield view(said), *hidden, *idle
            raise gr.Error(said, print_exception=False) from None

    def _work(self, omni: HaploOmni, prompt: str, negative: str, form: dict[str, Any]) -> Iterator[Any]:
        """In the engine's thread: preview values, then (path, clip)."""
        whole = {k: None if v is None else int(v) for k, v in form.items() if k != "guidance_scale"}
        request = omni.video_request(prompt or "", negative or "", guidance_scale=form["guidance_scale"], **whole)
        limits = omni.profile["generation_limits"]
        request.validate(limits["max_side"], limits["max_frames"])
        self.keeper.prepare(request)
        started = denoised = time.monotonic()
        for item in text_to_video(omni, request):
            if isinstance(item, GeneratedVideo):
                step_s = (denoised - started) / request.num_inference_steps
                self.keeper.learn(request, step_s, time.monotonic() - denoised)
                suffix = ".png" if len(item.frames) == 1 else ".mp4"
                yield item.save(self.storage.new_path(suffix)), item
            elif isinstance(item, DenoiseStep):
                denoised = time.monotonic()
                yield step_view(item, request.height, request.width, denoised - started)

    def _finished(self, value: tuple, last: dict[str, Any]) -> tuple:
        path, clip = value
        recipe = clip.recipe
        text = (
            f"Seed **{recipe['seed']}** · {recipe['width']} x {recipe['height']} · {recipe['num_frames']} "
            f"frame{'s' * (recipe['num_frames'] != 1)} · {recipe['num_inference_steps']} steps · "
            f"guidance {recipe['guidance_scale']:g}"
        )
        still = path.suffix == ".png"
        done = {**last, "text": "Done.", "percent": 100, "state": "done"}
        return (
            done,
            gr.Video(value=None if still else str(path), visible=not still),
            gr.Image(value=str(path) if still else None, visible=still),
            text,
            gr.Button(visible=True),
            recipe["seed"],
        )

    def stopped(self):
        """After a stop the form and the last preview's place are ready for the next try."""
        return (
            view("Stopped. Change what you like and generate again."),
            gr.Button(interactive=True),
            gr.Button(interactive=False),
        )

    async def text_to_video(
        self,
        prompt: str,
        negative_prompt: str = "",
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
    ) -> str:
        """Make a clip, for programs: the path of an MP4 (a PNG for one frame); settings left out are the checkpoint's own."""
        form = {
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "seed": seed,
        }
        path = ""
        async with aclosing(self.engine.stream(lambda omni: self._work(omni, prompt, negative_prompt, form))) as events:
            async for event in events:
                if isinstance(event, Progress) and isinstance(event.value, tuple):
                    path = str(event.value[0])
                elif isinstance(event, Ended) and event.error is not None:
                    raise gr.Error(sentence(event.error), print_exception=False) from None
        return path


def step_view(step: DenoiseStep, height: int, width: int, elapsed_s: float) -> dict[str, Any]:
    """A denoising step as the preview component's value."""
    frames: np.ndarray = step.preview(*preview_size(height, width))
    left = elapsed_s / step.index * (step.total - step.index)
    ending = f"about {duration(left)} left" if step.index < step.total else "decoding the frames…"
    text = f"Step {step.index} of {step.total} · {ending}"
    return view(text, animated(frames, 8), 100 * step.index / step.total, width / height)
