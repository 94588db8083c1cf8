"""A HaploOmni and priors of a few thousand numbers, with clips of random latents: stages in seconds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from diffusers import CogVideoXTransformer3DModel
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerBase, Qwen2ForCausalLM

from core.geometry import latent_frames
from core.model.modeling import HaploOmniForConditionalGeneration
from core.profile import CheckpointProfile
from core.training.data.dialogues import Context, SceneDialogues
from core.training.data.latents import ClipShape, LatentClips, clips_seed
from core.training.data.tokenization import CachedTokenizer
from core.training.initialization.assembly import assemble
from core.training.loop.config import Optimizer
from core.training.priors.language import language_config
from core.training.priors.tokenizer import build_tokenizer
from core.training.runs.parts import DEFAULTS
from core.training.stages.presets import tiny
from core.training.stages.stage import Source, Stage
from core.training.stages.task import Data, Rows
from core.training.stages.teachers import Teachers
from tests import ROOT

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
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=84,
        patch_size=14,
    )
    speech = language_config(len(own), own.eos_token_id, own.pad_token_id)
    for name, value in {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }.items():
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
    """Dialogues about scenes, and random latents in the place of encoded clips."""
    cached = CachedTokenizer(tokenizer())
    folder.mkdir(parents=True, exist_ok=True)
    clips_seed(folder, "random", begin=0)
    for shape in (STILL, CLIP):
        frames = latent_frames(shape.frames)
        latents = torch.randn(shape.clips, frames, 16, 8, 8, generator=torch.Generator().manual_seed(frames))
        torch.save(latents.to(torch.bfloat16), folder / f"{shape.name}-0.pt")
    noise = {
        Source.STILL: LatentClips(cached, folder, [STILL], "random"),
        Source.VIDEO: LatentClips(cached, folder, [CLIP], "random"),
    }
    contexts = {Source.PICTURE: Context.PICTURE, Source.CLIP: Context.CLIP}

    def dialogues(held_out: bool) -> dict[Source, Rows]:
        return {
            source: SceneDialogues(cached, context, LENGTHS[source], held_out)
            for source, context in contexts.items()
        }

    return Data({**dialogues(False), **noise}, {**dialogues(True), **noise})


@dataclass
class MiniatureParts:
    """What steps of a run are made with."""

    teachers: Teachers
    data: Data
    tokenizer: PreTrainedTokenizerBase
    sample_writer: None = None
    vae_folder: None = None
    profile: CheckpointProfile = DEFAULTS


def parts(folder: Path) -> MiniatureParts:
    """All of the above."""
    return MiniatureParts(teachers(), data(folder), tokenizer())


def stages(steps: int = 3) -> tuple[Stage, ...]:
    """The real way with few steps and rows; an even number of rows of everything, for two processes."""
    made = []
    for stage in tiny():
        config = replace(stage.config, steps=steps, warmup=1, optimizer=Optimizer.ADAMW)
        made.append(
            replace(
                stage,
                rows={source: max(2, count // 4 * 2) for source, count in stage.rows.items()},
                config=config,
            )
        )
    return tuple(made)


def launch(processes: int, module: str, *given: str) -> None:
    """``accelerate launch`` with so many processes; on a machine without GPUs they are CPU processes."""
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--num_processes",
        str(processes),
        "--num_machines",
        "1",
    ]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["--multi_gpu"] if processes > 1 else ["--cpu"]
    run = subprocess.run(
        [*command, "-m", module, *given], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-2000:]
