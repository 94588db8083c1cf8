"""Joint training of the small HaploOmni: next-token and diffusion loss in every step."""

from __future__ import annotations

import json
import logging
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.autoencoder import FRAMES, latent_statistics
from core.training.batches import NoiseBatch, Sentences, TalkBatch, noise_batch, talk_batch
from core.training.losses import diffusion_loss, next_token_loss
from core.training.presets import tiny_config
from core.training.run import Run, warmup_cosine
from core.training.scenes import Scene, render, sample_scene
from core.training.tokenizer import SPECIAL
from core.training.vision import SightBatch, VisionProbe, sight_batch

logger = logging.getLogger(__name__)

WEIGHTS = {"picture": 1.0, "clip": 0.6, "still": 0.5, "video": 1.0, "sight": 0.25}
Batch = TalkBatch | NoiseBatch | SightBatch


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run; rows are per step."""

    steps: int = 3000
    lr: float = 2e-3
    warmup: int = 60
    picture_rows: int = 18
    picture_length: int = 192
    clip_rows: int = 8
    clip_length: int = 224
    noise_rows: int = 20
    still_rows: int = 10
    sight_rows: int = 128
    text_length: int = 32
    ema: float = 0.997
    seed: int = 0
    clips: int = 5000
    stills: int = 4000
    size: int = 96


def build_scheduler() -> CogVideoXDDIMScheduler:
    """The released schedule (spec section 5)."""
    return CogVideoXDDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
    )


def build_model(tokenizer: PreTrainedTokenizerBase, seed: int) -> HaploOmniForConditionalGeneration:
    """A fresh small model; the two modulation sets start slightly apart so that they can specialise."""
    torch.manual_seed(seed)
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    model = HaploOmniForConditionalGeneration(tiny_config(len(tokenizer), special))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "SSG_" in name:
                parameter.add_(0.02 * torch.randn_like(parameter))
            elif name.endswith("proj.weight") and "patch_embed" in name:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            elif parameter.dim() == 2 and "indicator" not in name and "embed_tokens" not in name:
                parameter.normal_(std=parameter.shape[1] ** -0.5 * 0.7)
        model.proj_out.weight.mul_(0.1)
        model.lm_head.weight.mul_(0.1)
    return model


@torch.no_grad()
def cache_latents(
    vae: AutoencoderKLCogVideoX, file: Path, clips: int, frames: int, size: int, seed: int
) -> tuple[Tensor, list[Scene]]:
    """Encode random scenes once; the file keeps growing across interruptions. Latents [clips, F, 16, h, w], scaled."""
    rng = random.Random(f"latents/{seed}/{frames}")
    scenes = []
    for _ in range(clips):
        many = frames == 1 and rng.random() < 0.2
        scenes.append(sample_scene(rng, count=rng.randint(2, 3) if many else 1, motion="still" if frames == 1 else None))
    done: list[Tensor] = list(torch.load(file, weights_only=True)) if file.exists() else []
    vae.eval()
    for start in tqdm(range(len(done) * 40, clips, 40), desc=f"latents of {frames}-frame clips", mininterval=5.0):
        pixels = [torch.from_numpy(render(scene, size, size, frames)) for scene in scenes[start : start + 40]]
        video = torch.stack(pixels).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
        with torch.autocast("cpu", torch.bfloat16):
            z = vae.encode(video).latent_dist.mode()
        done.append((z.float() * vae.config.scaling_factor).permute(0, 2, 1, 3, 4).to(torch.bfloat16))
        if start // 40 % 20 == 0 or start + 40 >= clips:
            torch.save(done, file)
    return torch.cat(done)[:clips], scenes


def build_optimizers(model: nn.Module, probe: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for embeddings, norms, biases, heads and the probe."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        inside = name.startswith("model.layers.") and parameter.dim() == 2
        (matrices if inside and "SSG_" not in name and "indicator" not in name else rest).append(parameter)
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    rest += probe.parameters()
    return [muon, torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]


class Average(nn.Module):
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        for name, parameter in model.named_parameters():
            self.register_buffer(name.replace(".", "/"), parameter.detach().clone())

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model; the average forgets faster early on."""
        rate = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            getattr(self, name.replace(".", "/")).lerp_(parameter.detach(), rate)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the average into ``model``."""
        for name, parameter in model.named_parameters():
            parameter.copy_(getattr(self, name.replace(".", "/")))


class Trainer:
    """One joint run in a folder.

    Args:
        folder: of the run; latents are cached beside the state.
        tokenizer, vae: of the checkpoint to be.
        recipe: sizes and lengths.
        device: where to train; batches are always made on the CPU.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: PreTrainedTokenizerBase,
        vae: AutoencoderKLCogVideoX,
        recipe: Recipe,
        device: torch.device | None = None,
    ) -> None:
        self.recipe, self.device = recipe, device or torch.device("cpu")
        self.sentences = Sentences(tokenizer)
        self.scheduler = build_scheduler()
        folder.mkdir(parents=True, exist_ok=True)
        if vae.config.scaling_factor == 1.0:
            vae.register_to_config(scaling_factor=round(1.0 / float(latent_statistics(vae)["std"]), 5))  # type: ignore[arg-type]
        self.clips = cache_latents(vae, folder / "clips.pt", recipe.clips, FRAMES, recipe.size, recipe.seed)
        self.stills = cache_latents(vae, folder / "stills.pt", recipe.stills, 1, recipe.size, recipe.seed)
        self.model = build_model(tokenizer, recipe.seed).to(self.device)
        self.average = Average(self.model, recipe.ema)
        self.probe = VisionProbe(self.model.model.pre.hidden_size).to(self.device)
        self.optimizers = build_optimizers(self.model, self.probe, recipe.lr)
        muon, adamw = self.optimizers
        named = {"model": self.model, "average": self.average, "probe": self.probe, "muon": muon, "adamw": adamw}
        self.run = Run(folder, named)
        (folder / "recipe.json").write_text(json.dumps(recipe.__dict__, indent=1) + "\n")

    def train(self) -> HaploOmniForConditionalGeneration:
        """Run to the end of the recipe and return the averaged model."""
        with ThreadPoolExecutor(1) as ahead:  # draws the next step's scenes while this one computes
            coming = ahead.submit(self.batches, self.run.step)
            for step, bar in self.run.steps(self.recipe.steps, "haploomni"):
                batches, coming = coming.result(), ahead.submit(self.batches, step + 1)
                self._step(step, batches, bar)
        return self.averaged()

    def averaged(self) -> HaploOmniForConditionalGeneration:
        """The model with the averaged weights, as far as the run has come."""
        self.average.copy_to(self.model)
        return self.model

    def batches(self, step: int) -> dict[str, Batch]:
        """All batches of one step; its number decides every draw."""
        r, rng = self.recipe, random.Random(f"{self.recipe.seed}/{step}")
        made: dict[str, Batch] = {
            "sight": sight_batch(rng, r.sight_rows),
            "picture": talk_batch(self.sentences, rng, r.picture_rows, r.picture_length, clip=False),
            "clip": talk_batch(self.sentences, rng, r.clip_rows, r.clip_length, clip=True),
        }
        for name, (latents, scenes), rows in (("still", self.stills, r.still_rows), ("video", self.clips, r.noise_rows)):
            made[name] = noise_batch(self.sentences, rng, latents, scenes, rows, r.text_length, clip=name == "video")
        return made

    def _step(self, step: int, batches: dict[str, Batch], bar: tqdm) -> None:
        """Gradients of all tasks together, then one optimizer step."""
        r = self.recipe
        generator = torch.Generator().manual_seed(r.seed * 1_000_003 + step)
        factor = warmup_cosine(step, r.steps, r.warmup)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = r.lr * factor
            optimizer.zero_grad(set_to_none=True)
        losses = {}
        for name, batch in batches.items():
            with torch.autocast(self.device.type, torch.bfloat16):
                if isinstance(batch, SightBatch):
                    loss, losses["seen"] = self.probe(self.model.model, batch)
                elif isinstance(batch, TalkBatch):
                    loss = next_token_loss(self.model, batch, self.device)
                else:
                    loss = diffusion_loss(self.model, self.scheduler, batch, generator, self.device)
            (loss * WEIGHTS[name]).backward()
            losses[name] = float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.average.update(self.model, step)
        if step % 10 == 0:
            self.run.report(**losses)
            bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()})
