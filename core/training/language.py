"""The small language prior: a Qwen2ForCausalLM that answers questions about scenes described in words.

Where HaploOmni will see a picture, it reads the scene's description. It also learns what prompts mean, by answering
them with their plainest form: its states are what the video prior is conditioned on.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from core.training.batches import IGNORE, Medium, Sentences, collate_talks, prompt_row, talk_row
from core.training.trainer import SavedTask, Share


def language_config(vocab_size: int, end: int, pad: int) -> Qwen2Config:
    """1.8M parameters in four blocks of width 192, words aside."""
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        eos_token_id=end,
        pad_token_id=pad,
    )


class LanguagePrior(SavedTask):
    """Trains a small Qwen2 on talks about described scenes and on prompts.

    Args:
        tokenizer: of the whole family.
        rows: described scenes a step; a third as many rows of prompts go with them.
        length: tokens a row.
        seed: of data and starting values.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: int = 24, length: int = 256, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.weights = {"talk": 1.0, "prompt": 0.5}
        self.rows, self.length, self.seed = rows, length, seed
        self.sentences = Sentences(tokenizer)
        config = language_config(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
        self.language = Qwen2ForCausalLM._from_config(config, attn_implementation="eager")

    def draw(self, share: Share) -> dict[str, Any]:
        def rngs(name: str, rows: int) -> list[random.Random]:
            return [random.Random(f"{self.seed}/language/{name}/{share.step}/{row}") for row in share.rows(rows)]

        talks = [talk_row(self.sentences, rng, self.length, Medium.WORDS) for rng in rngs("talk", self.rows)]
        prompts = [prompt_row(self.sentences, rng, self.length) for rng in rngs("prompt", max(share.parts, self.rows // 3))]
        pad = self.sentences.pad
        return {"talk": collate_talks(talks, pad), "prompt": collate_talks(prompts, pad)}

    def counts(self, batches: dict[str, Any]) -> dict[str, int]:
        return {name: batch.count for name, batch in batches.items()}

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        losses = {}
        for name, batch in batches.items():
            device = self.language.device
            blocked = torch.zeros(batch.mask.shape, device=device).masked_fill(~batch.mask.to(device), -1e9)
            given = {"input_ids": batch.ids.to(device), "position_ids": batch.position_ids.to(device)}
            hidden = self.language.model(**given, attention_mask=blocked, use_cache=False).last_hidden_state
            labels = batch.labels.to(device)[:, 1:]
            counted = labels != IGNORE
            logits = self.language.lm_head(hidden[:, :-1][counted])
            losses[name] = F.cross_entropy(logits.float(), labels[counted], reduction="sum")
        return losses

    def save(self, folder: Path) -> None:
        """Write the prior and its tokenizer as transformers does."""
        self.language.save_pretrained(folder)
        self.sentences.tokenizer.save_pretrained(folder)
