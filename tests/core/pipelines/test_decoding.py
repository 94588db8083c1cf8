"""Decoding in steps is decoding at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core import GeneratedVideo
from core.pipelines.decoding import DecodeStep, decode_in_steps

SMALL = {"height": 64, "width": 64, "num_inference_steps": 1, "seed": 3}


@pytest.fixture
def vae(bundled):
    yield bundled.vae
    bundled.vae.disable_tiling()


def exhausted(steps):
    """All steps, and what the generator returns."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


@pytest.mark.parametrize("tile", [None, (64, 48)])
@pytest.mark.parametrize("frames", [1, 2, 3, 5, 6])
@torch.no_grad()
def test_it_gives_the_same_bytes(vae, frames, tile):
    if tile is not None:
        vae.enable_tiling(tile_sample_min_height=tile[0], tile_sample_min_width=tile[1])
    latents = torch.randn(1, 16, frames, 12, 10, generator=torch.Generator().manual_seed(frames))
    steps, video = exhausted(decode_in_steps(vae, latents))
    assert torch.equal(video, vae.decode(latents).sample)
    groups = max(1, frames // 2)
    tiles = 1 if tile is None else 2 * 3
    assert [step.index for step in steps] == list(range(1, groups * tiles)), "a step between two pieces"
    assert all(step.total == groups * tiles for step in steps)


def test_no_gradient_mode_is_held_between_two_steps(vae):
    steps = decode_in_steps(vae, torch.randn(1, 16, 4, 4, 4))
    next(steps)
    assert torch.is_grad_enabled()
    _, video = exhausted(steps)
    assert not video.requires_grad


def test_a_long_clip_can_be_stopped_while_it_is_decoded(bundled, monkeypatch):
    pieces = []
    decoder = bundled.vae.decoder.forward
    monkeypatch.setattr(
        bundled.vae.decoder, "forward", lambda *given, **named: pieces.append(1) or decoder(*given, **named)
    )
    items = bundled.text_to_video("a red circle", num_frames=17, **SMALL)
    seen = [type(next(items)) for _ in range(2)]
    assert seen[1] is DecodeStep
    items.close()
    assert len(pieces) == 1


def test_decoding_that_runs_out_of_memory_half_way_begins_anew(bundled, monkeypatch):
    wanted = list(bundled.text_to_video("a red circle", num_frames=17, **SMALL))[-1]
    decoder = bundled.vae.decoder.forward
    calls = []

    def second_fails(*given, **named):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decoder(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(bundled.vae.decoder, "forward", second_fails)
        patch.setattr(bundled, "on_out_of_memory", lambda phase: f"less while {phase.value}")
        *_, last = bundled.text_to_video("a red circle", num_frames=17, **SMALL)
    assert isinstance(last, GeneratedVideo)
    assert np.array_equal(last.frames, wanted.frames)
    assert len(calls) == 2 + 2
