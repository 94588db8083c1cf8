"""Four chats decoded in turns, as the engine does it, against the four as one left-padded batch."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from core.pipelines.chat import decode_steps, prepare
from core.requests import Sampling
from tests import ROOT
from tests.bench.table import row

WORDS = 48  # tokens of an answer
CHATS = (
    ("heart", "Describe the picture."),
    ("star", "What colour is the star, and where is it?"),
    ("ring", "What is it?"),
    ("three", "How many shapes are there in the picture, and which is the largest of them?"),
)


def in_turns(omni: Any, chats: list[Any]) -> tuple[list[list[int]], float]:
    """Tokens of every chat, and the seconds from the first ones on."""
    steps = [decode_steps(omni, inputs, Sampling(WORDS), WORDS) for inputs in chats]
    said = [[next(own)] for own in steps]
    began_s = time.perf_counter()
    for _ in range(WORDS - 1):
        for tokens, own in zip(said, steps, strict=True):
            tokens.append(next(own))
    return said, time.perf_counter() - began_s


@torch.no_grad()
def in_a_batch(omni: Any, chats: list[Any]) -> tuple[list[list[int]], list[Tensor], float]:
    """Tokens of every chat, the scores [B, V] that they were chosen by, and the seconds as above."""
    mask = _left_padded(chats, "attention_mask", 0)
    pad = omni.processor.tokenizer.pad_token_id
    given = {"input_ids": _left_padded(chats, "input_ids", pad), "attention_mask": mask}
    given |= {key: torch.cat([own[key] for own in chats]) for key in ("pixel_values", "image_sizes")}
    cache = DynamicCache()
    chosen = []
    scores = []
    began_s = 0.0
    for _ in range(WORDS):
        scores.append(omni.model(**given, cache=cache, logits_to_keep=1).logits[:, -1].float())  # (B, V)
        chosen.append(scores[-1].argmax(-1))
        began_s = began_s or time.perf_counter()
        mask = F.pad(mask, (0, 1), value=1)
        given = {"input_ids": chosen[-1][:, None], "attention_mask": mask}
    return torch.stack(chosen, dim=1).tolist(), scores, time.perf_counter() - began_s


def _left_padded(chats: list[Any], key: str, value: int) -> Tensor:
    """The rows [1, S] of all chats in one [B, longest]."""
    longest = max(own[key].shape[1] for own in chats)
    return torch.cat([F.pad(own[key], (longest - own[key].shape[1], 0), value=value) for own in chats])


def bench_batched(omni: Any, repeats: int) -> list[str]:
    """A token's time both ways, and how many tokens and scores are those that each chat gets alone."""
    chats = []
    for name, question in CHATS:
        picture = {"type": "image", "path": ROOT / "examples" / "media" / f"{name}.png"}
        content = [picture, {"type": "text", "text": question}]
        chats.append(prepare(omni, [{"role": "user", "content": content}]).to(omni.device))
    kept = omni.model.generation_config.eos_token_id
    omni.model.generation_config.eos_token_id = -1  # no answer ends early
    try:
        alone, again = ([in_a_batch(omni, [own]) for own in chats] for _ in range(2))
        turns = [in_turns(omni, chats) for _ in range(repeats)]
        batches = [in_a_batch(omni, chats) for _ in range(repeats)]
    finally:
        omni.model.generation_config.eos_token_id = kept
    tokens = len(chats) * (WORDS - 1)
    in_turns_s = min(seconds for _, seconds in turns)
    in_a_batch_s = min(seconds for *_, seconds in batches)
    wanted = [own[0][0] for own in alone]
    together, scores, _ = batches[0]
    said, _ = turns[0]
    # the scores of all chats, step by step, in rows [1, V]
    own_scores = [step for _, steps, _ in alone for step in steps]
    repeated = [step for _, steps, _ in again for step in steps]
    joined = [step[number : number + 1] for number in range(len(chats)) for step in scores]
    against = "one left-padded batch"
    return [
        row("a token of four chats", 1e3 * in_turns_s / tokens, 1e3 * in_a_batch_s / tokens, "ms", against),
        row("its tokens as said alone", _same(said, wanted), _same(together, wanted), "%", against),
        row(
            "its scores the same bits", _equal(repeated, own_scores), _equal(joined, own_scores), "%", against
        ),
    ]


def _same(said: list[list[int]], wanted: list[list[int]]) -> float:
    """The share of tokens that are as wanted, in percent."""
    return 100 * float((torch.tensor(said) == torch.tensor(wanted)).float().mean())


def _equal(scores: list[Tensor], wanted: list[Tensor]) -> float:
    """The share of steps whose scores are the same bits, in percent."""
    return 100 * sum(map(torch.equal, scores, wanted)) / len(wanted)
