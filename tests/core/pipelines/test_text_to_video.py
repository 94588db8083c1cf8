"""The text-to-video pipeline on the bundled model."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch

from core import DenoiseStep, GeneratedVideo
from core.errors import PromptError, RequestError
from core.pipelines.guidance import CachedPromptDenoiser, Guidance, ReferenceDenoiser
from core.pipelines.preview import fit_latent_rgb
from core.pipelines.text_to_video import encode_prompt, text_to_video

PROMPT = "a red circle moving left on a black background"
SMALL = {"height": 64, "width": 48, "num_inference_steps": 3, "seed": 7}


def finish(stream):
    *steps, last = stream
    assert all(isinstance(step, DenoiseStep) for step in steps) and isinstance(last, GeneratedVideo)
    return steps, last


def test_steps_then_the_clip(bundled):
    steps, clip = finish(bundled.text_to_video(PROMPT, **SMALL))
    assert [(step.index, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert clip.frames.shape == (9, 64, 48, 3) and clip.frames.dtype == np.uint8 and clip.fps == 8
    assert clip.recipe["prompt"] == PROMPT and clip.recipe["seed"] == 7 and clip.recipe["num_frames"] == 9
    preview = steps[-1].preview()
    assert preview.shape == clip.frames.shape and preview.dtype == np.uint8
    assert steps[0].preview(30, 20).shape == (9, 30, 20, 3)
    assert not np.array_equal(steps[0].preview(), preview)


def test_the_last_preview_resembles_the_clip(bundled):
    steps, clip = finish(bundled.text_to_video(PROMPT, seed=3))
    frames, height, width, _ = clip.frames.shape
    blocks = (frames, height // 8, 8, width // 8, 8, 3)
    blurred, seen = (video.reshape(blocks).mean((2, 4)) for video in (clip.frames, steps[-1].preview()))
    assert np.abs(blurred - seen).mean() < 40
    assert np.corrcoef(blurred.ravel(), seen.ravel())[0, 1] > 0.5


@pytest.fixture
def denoising(bundled):
    """Two prompts of different length, one latent."""
    request = bundled.video_request(PROMPT, **SMALL)
    ids = [encode_prompt(bundled, text) for text in ("", PROMPT)]
    latents = torch.randn(request.latent_shape, generator=torch.Generator().manual_seed(0))
    return ids, latents


@pytest.mark.parametrize("timestep", [999, 500, 20])
def test_fast_equals_plain(bundled, denoising, timestep):
    ids, latents = denoising
    plain = ReferenceDenoiser(bundled.model, ids, 6.0, bundled.processor.tokenizer.pad_token_id)
    fast = CachedPromptDenoiser(bundled.model, ids, 6.0)
    one = CachedPromptDenoiser(bundled.model, ids[1:], 1.0)
    both = plain.predict(latents, timestep)
    single = ReferenceDenoiser(bundled.model, ids[1:], 1.0, 0).predict(latents, timestep)
    size = max(1.0, float(single.abs().max()))  # float32 rounds by size
    assert (fast.predict(latents, timestep) - both).abs().max() <= 1e-5 * size * 11  # 6 + 5: guidance
    assert (one.predict(latents, timestep) - single).abs().max() <= 1e-5 * size


def test_batched_equals_one_at_a_time(bundled, denoising):
    ids, latents = denoising
    batched, apart = (
        CachedPromptDenoiser(bundled.model, ids, 6.0).predict(latents, 500, g) for g in Guidance
    )
    assert (batched - apart).abs().max() <= 1e-5 * 11


def test_plain_and_fast_clips_agree(bundled):
    request = bundled.video_request(PROMPT, **SMALL)
    ways = ((Guidance.BATCHED, False), (Guidance.ONE_AT_A_TIME, False), (Guidance.BATCHED, True))
    clips = [finish(text_to_video(bundled, request, *way))[1].frames.astype(int) for way in ways]
    assert np.abs(clips[0] - clips[1]).max() <= 1 and np.abs(clips[0] - clips[2]).max() <= 1


def test_same_seed_same_bytes_between_other_jobs(bundled, tmp_path):
    first = finish(bundled.text_to_video(PROMPT, **SMALL))[1].save(tmp_path / "1.mp4")
    running = bundled.text_to_video(PROMPT, **{**SMALL, "num_inference_steps": 4})
    next(running)
    torch.manual_seed(123)
    other = finish(bundled.text_to_video("a blue star", **{**SMALL, "seed": 8}))[1]
    next(running)
    second = finish(bundled.text_to_video(PROMPT, **SMALL))[1].save(tmp_path / "2.mp4")
    assert first.read_bytes() == second.read_bytes()
    other_alone = finish(bundled.text_to_video("a blue star", **{**SMALL, "seed": 8}))[1]
    assert np.array_equal(other.frames, other_alone.frames)
    alone = finish(bundled.text_to_video(PROMPT, **{**SMALL, "num_inference_steps": 4}))[1]
    assert np.array_equal(finish(running)[1].frames, alone.frames)


def test_closing_stops_within_a_step(bundled, monkeypatch):
    calls = []
    forward = bundled.model.forward
    monkeypatch.setattr(bundled.model, "forward", lambda *a, **k: calls.append("step") or forward(*a, **k))
    monkeypatch.setattr(bundled.vae.decoder, "forward", lambda *_, **__: calls.append("decode"))
    stream = bundled.text_to_video(PROMPT, **SMALL)
    next(stream)
    before = len(calls)
    stream.close()
    assert list(stream) == [] and len(calls) == before and "decode" not in calls


def test_one_frame_is_an_image(bundled, tmp_path):
    _, picture = finish(bundled.text_to_video(PROMPT, num_frames=1, **SMALL))
    assert picture.frames.shape == (1, 64, 48, 3)
    assert picture.save(tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_defaults_are_the_checkpoints_own(bundled):
    request = bundled.video_request(PROMPT)
    own = asdict(bundled.profile.generation)
    assert {key: getattr(request, key) for key in own} == own
    assert bundled.video_request(PROMPT).seed != request.seed


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"height": 100}, "nearest is 96"),
        ({"width": 16}, "nearest is 32"),
        ({"width": 4096}, "nearest is 256"),
        ({"num_frames": 5}, "nearest is"),
        ({"num_frames": 0}, "nearest is 1"),
        ({"num_inference_steps": 0}, "choose 1 to"),
        ({"guidance_scale": 0.5}, "guidance"),
        ({"guidance_scale": float("nan")}, "guidance"),
        ({"seed": -1}, "seed"),
        ({"height": 256, "width": 256, "num_frames": 49}, "context holds 1024"),
    ],
)
def test_impossible_requests(bundled, wrong, expected):
    with pytest.raises(RequestError, match=expected):
        next(bundled.text_to_video(PROMPT, **wrong))


def test_impossible_prompts(bundled):
    with pytest.raises(PromptError, match="empty"):
        next(bundled.text_to_video("  "))
    with pytest.raises(PromptError, match="shorten"):
        next(bundled.text_to_video("red " * 3000))


def test_latent_rgb_fit_recovers_a_known_map():
    generator = torch.Generator().manual_seed(0)
    factors, bias = torch.randn(16, 3, generator=generator) * 0.05, torch.tensor([0.4, 0.5, 0.6])
    pairs = []
    for _ in range(3):
        z = torch.randn(16, 3, 4, 6, generator=generator)
        rgb = torch.einsum("cfhw,cr->rfhw", z, factors) + bias[:, None, None, None]
        clip = torch.cat([rgb[:, :1], rgb[:, 1:].repeat_interleave(4, 1)], 1)
        pairs.append(
            (z, torch.nn.functional.interpolate(clip.transpose(0, 1), scale_factor=8).transpose(0, 1))
        )
    fitted, r2 = fit_latent_rgb(pairs)
    assert torch.allclose(fitted.factors, factors, atol=1e-4) and torch.allclose(fitted.bias, bias, atol=1e-4)
    assert r2 > 0.999


def test_a_request_holds_whole_text(bundled):
    request = bundled.video_request("a \ud83d cat\0", "\udc00")
    assert request.prompt == "a \ufffd cat" and request.negative_prompt == "\ufffd"
    with pytest.raises(PromptError, match="empty"):
        bundled.video_request("\0\x1b").validate(1024, 49)
    with pytest.raises(PromptError, match="must be text"):
        bundled.video_request(3).validate(1024, 49)
