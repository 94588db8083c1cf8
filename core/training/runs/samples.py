"""Something to look at while a run learns: answers to fixed questions and clips of fixed prompts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLCogVideoX

from core.errors import HaploOmniError
from core.evaluation.answers import QuestionSet
from core.evaluation.clips import single_scenes
from core.evaluation.sheet import contact_sheet
from core.model.modeling import HaploOmniForConditionalGeneration
from core.opencv import cv2
from core.pipelines import GeneratedVideo, HaploOmni
from core.processor import HaploOmniProcessor
from core.processor.prompts import Message
from core.profile import CheckpointProfile
from core.scenes.captions import caption
from core.schedule import build_scheduler
from core.weights.load import LoadedCheckpoint

STEPS = 12  # of denoising: rough clips are enough to see where a run goes


@dataclass
class SampleWriter:
    """Draws samples of a model in training.

    Args:
        processor, vae: of the model; without clips to draw the latter may be None.
        profile: its defaults.
        talks: conversations up to a question, each with the answer it should get.
        prompts: of clips.
        size: (frames, height, width) of the clips.
    """

    processor: HaploOmniProcessor
    vae: AutoencoderKLCogVideoX | None
    profile: CheckpointProfile
    talks: Sequence[tuple[list[Message], str]]
    prompts: Sequence[str]
    size: tuple[int, int, int]

    def sample(self, model: HaploOmniForConditionalGeneration, folder: Path) -> None:
        """Write ``answers.md`` and ``clips.png``."""
        folder.mkdir(parents=True, exist_ok=True)
        device = model.lm_head.weight.device
        vae = self.vae.to(device) if self.vae is not None else None
        parts = LoadedCheckpoint(folder, model, self.processor, vae, build_scheduler(), self.profile, None)  # type: ignore[arg-type]
        omni = HaploOmni(parts, device)
        if self.talks:
            (folder / "answers.md").write_text(self._answers(omni), encoding="utf-8")
        if self.prompts:
            cv2.imwrite(str(folder / "clips.png"), contact_sheet(self._clips(omni)))

    def _answers(self, omni: HaploOmni) -> str:
        lines = ["| question | should be | answer |", "|---|---|---|"]
        for messages, wanted in self.talks:
            asked = [part["text"] for part in messages[-1]["content"] if part["type"] == "text"]
            try:
                said = "".join(omni.chat(messages, max_new_tokens=32, temperature=0.0))
            except HaploOmniError as error:
                said = f"({error})"
            lines.append(f"| {' '.join(asked)} | {wanted} | {said} |".replace("\n", " "))
        return "\n".join(lines) + "\n"

    def _clips(self, omni: HaploOmni) -> list[tuple[str, Any]]:
        frames, height, width = self.size
        made = []
        for seed, prompt in enumerate(self.prompts):
            asked: dict[str, Any] = {"num_frames": frames, "height": height, "width": width, "seed": seed}
            *_, last = omni.text_to_video(prompt, num_inference_steps=STEPS, **asked)
            assert isinstance(last, GeneratedVideo)
            made.append((prompt, last.frames))
        return made


def scene_talks(count: int) -> list[tuple[list[Message], str]]:
    """Held-out questions of different kinds about held-out scenes."""
    question_set = QuestionSet(0, held_out=True)
    made: list[tuple[list[Message], str]] = []
    for kind in ("colour", "shape", "position", "motion", "count", "relation", "yes_no", "caption")[:count]:
        media, talk = next(question_set.dialogues(kind))
        made.append(
            (
                [{"role": "user", "content": [*media, {"type": "text", "text": talk[0].question}]}],
                talk[0].answer,
            )
        )
    return made


def scene_prompts(count: int) -> list[str]:
    """Plain prompts of held-out scenes of one object."""
    scenes = single_scenes(random.Random(0), held_out=True)
    return [caption(next(scenes), clip=True) for _ in range(count)]
