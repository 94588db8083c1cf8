"""Text to video: a form, a preview that sharpens with the steps, and the finished clip."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from html import escape
from typing import Any

import gradio as gr

from app.engine.memory import Estimate
from app.errors import user_message
from app.formatting import plural
from app.services.estimates import Estimates
from app.services.following import Stopped
from app.services.video import START, FinishedClip, PreviewStep, VideoService
from app.web.browser_state import (
    PageLoads,
    address,
    kept_values,
    remember,
    session_of_request,
    visitor,
)
from app.web.chat_forms import ticket_of
from app.web.forms import PRIVATE, as_typed, errors_as_sentences, page_error
from app.web.preview import IDLE, TEMPLATE, step_view, view
from core.errors import TicketError
from core.geometry import FRAME_STEP, MIN_SIDE, SIDE_STEP
from core.requests import MAX_SEED, MAX_STEPS, VideoRequest


class VideoTab:
    """Builds the tab and handles its events.

    Args:
        video: makes clips.
        estimates: says what they will take.
        prompts: example prompts.
    """

    def __init__(self, video: VideoService, estimates: Estimates, prompts: list[str]) -> None:
        self.video = video
        self.estimates = estimates
        with gr.Row(equal_height=False, elem_id="video-row"):
            with gr.Column(scale=5, min_width=320, elem_id="video-form"):
                with gr.Column(elem_id="video-ask"):
                    self._build_prompt(prompts)
                with gr.Column(elem_id="video-settings"):
                    self._build_settings()
            with gr.Column(scale=6, min_width=320, elem_id="video-outcome"):
                self._build_outcome()
        self.used_seed = gr.State(None)
        self.kept = gr.JSON(visible=False)  # for the browser: the newest ticket
        self._shown = PageLoads()  # which ticket a page load follows
        self.fitting_size = gr.State(None)
        self._wire()

    def _build_prompt(self, prompts: list[str]) -> None:
        # no max_length: the browser would cut what is pasted without a word
        self.prompt = gr.Textbox(
            label="Prompt",
            lines=2,
            placeholder=prompts[0],
            elem_id="video-prompt",
            autofocus=False,
        )
        with gr.Row(elem_id="generate-row"):
            self.generate = gr.Button("Generate", variant="primary", elem_id="video-generate")
            self.stop = gr.Button(STOP, variant="stop", elem_id="video-stop", interactive=False)
        self.expected = gr.HTML("", elem_id="video-expected")
        self.suggestion = gr.Button("", size="sm", variant="primary", visible=False, elem_id="video-fix")
        gr.Examples(
            [[text] for text in prompts],
            inputs=[self.prompt],
            label="Try one",
            examples_per_page=8,
        )

    def _build_settings(self) -> None:
        profile = self.video.tickets.engine.omni.profile
        own = profile.generation
        limits = profile.generation_limits
        self.negative = gr.Textbox(
            label="Negative prompt (what to keep away from)", lines=1, elem_id="video-negative"
        )
        sides: dict[str, Any] = {"minimum": MIN_SIDE, "maximum": limits.max_side, "step": SIDE_STEP}
        with gr.Row():
            self.width = gr.Slider(**sides, value=own.width, label="Width", elem_id="video-width")
            self.height = gr.Slider(**sides, value=own.height, label="Height", elem_id="video-height")
        with gr.Row():
            self.frames = gr.Slider(
                1,
                limits.max_frames,
                own.num_frames,
                step=FRAME_STEP,
                label="Frames",
                info="8 a second; 1 is a picture",
                elem_id="video-frames",
            )
            self.steps = gr.Slider(
                1,
                MAX_STEPS,
                own.num_inference_steps,
                step=1,
                label="Steps",
                info="more: finer and slower",
                elem_id="video-steps",
            )
        self._build_guidance_and_seed()

    def _build_guidance_and_seed(self) -> None:
        usual = self.video.tickets.engine.omni.profile.generation.guidance_scale
        with gr.Row():
            self.guidance = gr.Slider(
                1,
                max(15, usual),
                usual,
                step=0.5,
                label="Guidance",
                info="how closely to follow the prompt; 1: not at all",
                elem_id="video-guidance",
            )
            self.seed = gr.Number(
                0, precision=0, minimum=0, maximum=MAX_SEED, label="Seed", elem_id="video-seed"
            )
        with gr.Row(elem_id="seed-row"):
            self.fresh = gr.Checkbox(True, label="A new seed each time", elem_id="video-fresh", min_width=160)
            self.roll = gr.Button("⚄ Roll a seed", size="sm", min_width=100, elem_id="video-dice")
        self.finish = gr.Checkbox(False, label="Finish it also when I close the page", elem_id="video-finish")

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
            label="Finished picture",
            elem_id="picture-result",
            visible=False,
            interactive=False,
            buttons=["download"],
        )
        self.recipe = gr.Markdown("", elem_id="video-recipe")
        self.again = gr.Button("Use this seed again", size="sm", visible=False, elem_id="video-reuse")
        self.rerun = gr.Button("Make it again", variant="primary", visible=False, elem_id="video-rerun")

    def _wire(self) -> None:
        size = [self.frames, self.height, self.width]
        numbers = [*size, self.steps, self.guidance, self.seed]
        for field in numbers:
            as_typed(field)
        self.size_inputs: list[Any] = [*numbers, self.fresh, self.prompt, self.negative]
        self.form: list[Any] = [*self.size_inputs, self.finish]
        self.estimate_outputs: list[Any] = [self.expected, self.suggestion, self.fitting_size]
        self._wire_making()
        seed = [self.seed, self.fresh]
        quick: dict[str, Any] = {"queue": False, **PRIVATE}
        self.roll.click(self.roll_seed, None, seed, **quick)
        self.again.click(lambda seed: (seed, False), self.used_seed, seed, **quick)
        estimate: dict[str, Any] = {
            "fn": self.update_estimate,
            "inputs": self.size_inputs,
            "outputs": self.estimate_outputs,
            "trigger_mode": "always_last",
            **quick,
        }
        gr.on([field.change for field in self.size_inputs], **estimate)
        self.made.then(**estimate)
        self.suggestion.click(self.apply_suggestion, self.fitting_size, size, **quick)

    def _wire_making(self) -> None:
        self.outcome: list[Any] = [
            self.preview,
            self.result,
            self.picture,
            self.recipe,
            self.again,
            self.used_seed,
            self.generate,
            self.stop,
            self.rerun,
            self.kept,
        ]
        self.made = gr.on(
            [self.generate.click, self.prompt.submit], self.make, self.form, self.outcome, **PRIVATE
        )
        self.rerun.click(self.make_again, self.kept, self.outcome, **PRIVATE)
        self.stop.click(self.stop_making, self.kept, self.stop, queue=False, **PRIVATE)
        remember("video.kept", [self.kept])
        remember("video.form", self.form)

    def wire_after(self, loaded: gr.events.Dependency) -> None:
        """What follows a load of the page."""
        loaded.then(self.reattach, self.kept, self.outcome, **PRIVATE)

    # -- handlers

    def update_estimate(
        self, frames, height, width, steps, guidance, seed=None, fresh=True, prompt="", negative=""
    ) -> tuple[str, gr.Button, tuple[int, int, int] | None]:
        """What this clip will take, or what Generate would say; where less can be made, that as a button."""
        form = form_values(frames, height, width, steps, guidance, seed, fresh)
        estimate = self.estimates.clip(prompt, negative, **form)
        change = estimate.change
        if change is None:
            return estimate_line(estimate), gr.Button(visible=False), None
        label = f"Use {plural(change.num_frames, 'frame')} of {change.width} x {change.height}"
        fitting = (change.num_frames, change.height, change.width)
        return estimate_line(estimate), gr.Button(label, visible=True), fitting

    def apply_suggestion(self, fitting):
        """The size that fits, into the form."""
        return fitting or (gr.skip(),) * 3

    def roll_seed(self):
        """A seed to be kept."""
        return secrets.randbelow(MAX_SEED + 1), False

    async def make(
        self, frames, height, width, steps, guidance, seed, fresh, prompt, negative, finish=False
    ) -> AsyncIterator[tuple]:
        """Generate a clip: previews while it denoises, the file at the end. The form stays as it is.

        What cannot be made is said before the last clip leaves the page.
        """
        with errors_as_sentences():
            form = form_values(frames, height, width, steps, guidance, seed, fresh)
            request = await asyncio.to_thread(self.video.request, prompt, negative, **form)
            ticket = self.video.submit(request, visitor(), finish=bool(finish), address=address())
        async for update in self._show(ticket, request):
            yield update

    async def make_again(self, kept) -> AsyncIterator[tuple]:
        """A clip that was not finished, once more from its recipe."""
        with errors_as_sentences():
            request = self.video.tickets.get(ticket_of(kept), visitor()).job
            ticket = self.video.submit(request, visitor(), address=address())
        async for update in self._show(ticket, request):
            yield update

    async def reattach(self, kept) -> AsyncIterator[tuple]:
        """After a load of the page: the clip that is being made, or what came of it."""
        try:
            ticket = self.video.tickets.get(ticket_of(kept), visitor())
        except TicketError as error:
            text = user_message(error) if ticket_of(kept) else IDLE
            yield (view(text) if ticket_of(kept) else gr.skip(), *(gr.skip(),) * (len(self.outcome) - 1))
            return
        if ticket.ended is not None and ticket.ended.error is not None:
            yield (
                view(user_message(ticket.ended.error)),
                *no_clip(),
                *idle_buttons(),
                gr.Button(visible=True),
                kept,
            )
            return
        async for update in self._show(ticket_of(kept), ticket.job):
            yield update

    async def stop_making(self, kept):
        """Ask for a stop; the outcome says when the model is free."""
        with suppress(TicketError):
            self.video.tickets.stop(ticket_of(kept), visitor())
        return gr.Button("Stopping…", interactive=False)

    async def _show(self, ticket: str, request: VideoRequest) -> AsyncIterator[tuple]:
        """A job on its way: the outcome with every piece of it.

        Of two that one page follows, such as one found by its load and a new one, the newer has the outcome.
        """
        session = session_of_request()
        self._shown[session] = ticket
        ratio = request.width / request.height
        last = view(f"{START}…", ratio=ratio)
        hidden = gr.Button(visible=False)
        yield last, *no_clip(), *running_buttons(), hidden, {"ticket": ticket}
        try:
            async with aclosing(self.video.follow(ticket, visitor())) as pieces:
                async for piece in pieces:
                    if self._shown[session] != ticket:
                        yield (gr.skip(),) * len(self.outcome)  # what comes last is painted once more
                        return
                    if isinstance(piece, FinishedClip):
                        last = {**last, **DONE}
                        yield last, *clip_outputs(piece), *idle_buttons(), gr.skip(), gr.skip()
                        continue
                    if isinstance(piece, Stopped):
                        last = {**last, "text": STOPPED}
                        yield last, *no_clip(), *idle_buttons(), gr.skip(), gr.skip()
                        continue
                    if isinstance(piece, PreviewStep):
                        last = step_view(piece, ratio)
                    elif piece.text:
                        last = {**last, "text": piece.text}
                    yield last, *(gr.skip(),) * (len(self.outcome) - 1)
        except Exception as error:
            told = page_error(error)
            yield view(told.message), *no_clip(), *idle_buttons(), gr.Button(visible=True), gr.skip()
            raise told from None

    def restore(self, saved: Any) -> list[Any]:
        """What a load of the page finds: the form and the newest ticket as the browser kept them.

        Returns:
            For :attr:`restored`.
        """
        form = [
            gr.skip() if value is None else value
            for value in kept_values(saved, "video.form", len(self.form))
        ]
        held = saved.get("video.kept") if isinstance(saved, dict) else None
        ticket = ticket_of(held[0]) if isinstance(held, list) and held else ""
        return [{"ticket": ticket} if ticket else None, *form]

    @property
    def restored(self) -> list[Any]:
        """The outputs of :meth:`restore`."""
        return [self.kept, *self.form]


STOP = "Stop"
STOPPED = "Stopped. Change what you like and generate again."


def running_buttons() -> tuple[gr.Button, gr.Button]:
    """Generate and Stop while a clip is made."""
    return gr.Button(interactive=False), gr.Button(STOP, interactive=True)


def idle_buttons() -> tuple[gr.Button, gr.Button]:
    """Generate and Stop while none is."""
    return gr.Button(interactive=True), gr.Button(STOP, interactive=False)


DONE = {"text": "Done.", "percent": 100, "state": "done"}


def no_clip() -> tuple:
    """The outputs of a finished clip while there is none; the used seed stays."""
    hidden = gr.Video(value=None, visible=False), gr.Image(value=None, visible=False)
    return *hidden, "", gr.Button(visible=False), gr.skip()


def form_values(frames, height, width, steps, guidance, seed, fresh) -> dict[str, Any]:
    """The form's fields under the request's names; no seed where it is to be a new one."""
    return {
        "height": height,
        "width": width,
        "num_frames": frames,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "seed": None if fresh else seed,
    }


def estimate_line(estimate: Estimate) -> str:
    """An estimate as a line of HTML, red where the clip cannot be made."""
    return f'<p class="{"fits" if estimate.fits else "too-large"}">{escape(estimate.text)}</p>'


def clip_outputs(clip: FinishedClip) -> tuple:
    """A finished clip in its place, its recipe, and its seed for the next one."""
    path = str(clip.path)
    video = gr.Video(value=None if clip.is_picture else path, visible=not clip.is_picture)
    picture = gr.Image(value=path if clip.is_picture else None, visible=clip.is_picture)
    return video, picture, recipe_line(clip.request), gr.Button(visible=True), clip.request.seed


def recipe_line(request: VideoRequest) -> str:
    """What makes a clip again, in Markdown."""
    return (
        f"Seed **{request.seed}** · {request.width} x {request.height} · "
        f"{plural(request.num_frames, 'frame')} · "
        f"{request.num_inference_steps} steps · guidance {request.guidance_scale:g}"
    )
