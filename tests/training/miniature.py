"""A HaploOmni and priors of a few thousand numbers, with clips of random latents: stages in seconds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerBase, Qwen2ForCausalLM

from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.batches import Medium, Sentences
from core.training.course import assemble
from core.training.language import language_config
from core.training.latents import ClipShape, LatentClips, clips_seed
from core.training.stage_task import Data, SceneTalks, Teachers
from core.training.stages import Source, Stage, tiny
from core.training.tokenizer import build_tokenizer
from core.training.trainer import Optimizer

ROOT = Path(__file__).resolve().parents[2]
STILL, CLIP = ClipShape(1, 64, 64, 6), ClipShape(9, 64, 64, 6)
LENGTHS = {Source.PICTURE: 128, Source.CLIP: 288}


@lru_cache(maxsize=1)
def tokenizer() -> PreTrainedTokenizerBase:
    """The real small one; it takes a few seconds to train."""
    return build_tokenizer()


def teachers(seed: int = 0) -> Teachers:
    """Random priors of one block each."""
    torch.manual_seed(seed)
    own = tokenizer()
    sight = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=84, patch_size=14
    )
    speech = language_config(len(own), own.eos_token_id, own.pad_token_id)
    for name, value in {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}.items():
        setattr(speech, name, value)
    speech.num_key_value_heads, speech.layer_types = 2, speech.layer_types[:1]
    video = CogVideoXTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=48,
        num_layers=1,
        text_embed_dim=48,
        max_text_seq_length=40,
        sample_width=8,
        sample_height=8,
        sample_frames=9,
    )
    return Teachers(CLIPVisionModel(sight).eval(), Qwen2ForCausalLM(speech).eval(), video.eval())


def model(seed: int = 0) -> HaploOmniForConditionalGeneration:
    """The priors' assembly."""
    return assemble(teachers(seed), tokenizer())


def data(folder: Path) -> Data:
    """Scenes to talk about, and random latents in the place of encoded clips."""
    sentences = Sentences(tokenizer())
    folder.mkdir(parents=True, exist_ok=True)
    clips_seed(folder, begin=0)
    for shape in (STILL, CLIP):
        frames = (shape.frames - 1) // 4 + 1
        latents = torch.randn(shape.clips, frames, 16, 8, 8, generator=torch.Generator().manual_seed(frames))
        torch.save(latents.to(torch.bfloat16), folder / f"{shape.name}-0.pt")
    noise = {Source.STILL: LatentClips(sentences, folder, [STILL]), Source.VIDEO: LatentClips(sentences, folder, [CLIP])}
    media = {Source.PICTURE: Medium.PICTURE, Source.CLIP: Medium.CLIP}
    talks = {source: SceneTalks(sentences, medium, LENGTHS[source]) for source, medium in media.items()}
    unseen = {source: SceneTalks(sentences, medium, LENGTHS[source], held_out=True) for source, medium in media.items()}
    return Data({**talks, **noise}, {**unseen, **noise})


def stages(steps: int = 3) -> tuple[Stage, ...]:
    """The real way with few steps and rows; an even number of rows of everything, for two processes."""
    made = []
    for stage in tiny():
        plan = replace(stage.plan, steps=steps, warmup=1, optimizer=Optimizer.ADAMW)
        made.append(replace(stage, rows={source: max(2, count // 4 * 2) for source, count in stage.rows.items()}, plan=plan))
    return tuple(made)


def launch(processes: int, module: str, *given: str) -> None:
    """``accelerate launch`` with so many processes; on a machine without GPUs they are CPU processes."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes), "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["--multi_gpu"] if processes > 1 else ["--cpu"]
    run = subprocess.run([*command, "-m", module, *given], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-2000:]
