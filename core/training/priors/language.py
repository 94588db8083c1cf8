"""The small language prior: a Qwen2ForCausalLM that answers questions about scenes described in words.

Where HaploOmni will see a picture, it reads the scene's description.
It also learns what prompts mean, by answering them with their plainest form.
Its states are what the video prior is conditioned on.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from core.files import SHIPPED_SHARD_BYTES
from core.training.data.dialogues import Context, dialogue_row, prompt_row
from core.training.data.packing import collate
from core.training.data.tokenization import IGNORE, CachedTokenizer
from core.training.loop.processes import BatchShard
from core.training.loop.task import SavedTask


def language_config(vocab_size: int, end: int, pad: int) -> Qwen2Config:
    """1.8M parameters in four blocks of width 192, embeddings aside."""
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
    """Trains a small Qwen2 on dialogues about described scenes and on prompts.

    Args:
        tokenizer: of the whole family.
        rows: described scenes a step; a third as many rows of prompts go with them.
        length: tokens a row.
        seed: of data and starting values.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, rows: int = 24, length: int = 256, seed: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.loss_weights = {"dialogue": 1.0, "prompt": 0.5}
        self.rows = rows
        self.length = length
        self.seed = seed
        self.tokenizer = CachedTokenizer(tokenizer)
        config = language_config(len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
        self.language = Qwen2ForCausalLM._from_config(config, attn_implementation="eager")

    def sample_batch(self, share: BatchShard) -> dict[str, Any]:
        def rngs(name: str, rows: int) -> list[random.Random]:
            key = f"{self.seed}/language/{name}/{share.step}"
            return [random.Random(f"{key}/{row}") for row in share.rows(rows)]

        # the keys that rows are drawn by are those of the runs before
        dialogues = [
            dialogue_row(self.tokenizer, rng, self.length, Context.WORDS) for rng in rngs("talk", self.rows)
        ]
        prompts = [
            prompt_row(self.tokenizer, rng, self.length)
            for rng in rngs("prompt", max(share.parts, self.rows // 3))
        ]
        pad = self.tokenizer.pad
        return {"dialogue": collate(dialogues, pad), "prompt": collate(prompts, pad)}

    def forward(self, batches: dict[str, Any]) -> dict[str, Tensor]:
        """Cross-entropy of the tokens to learn, by kind of text: scalars, each summed over tokens."""
        losses = {}
        for name, batch in batches.items():
            device = self.language.device
            # the mask as what is added to the scores (B, 1, S, S)
            blocked = torch.zeros(batch.mask.shape, device=device).masked_fill(~batch.mask.to(device), -1e9)
            given = {"input_ids": batch.ids.to(device), "position_ids": batch.position_ids.to(device)}
            hidden = self.language.model(**given, attention_mask=blocked, use_cache=False).last_hidden_state
            # only where something is to be learned, logits are computed
            labels = batch.labels.to(device)[:, 1:]
            counted = labels != IGNORE
            logits = self.language.lm_head(hidden[:, :-1][counted])
            losses[name] = F.cross_entropy(logits.float(), labels[counted], reduction="sum")
        return losses

    def save(self, folder: Path) -> None:
        """Write the prior and its tokenizer as transformers does."""
        self.language.save_pretrained(folder, max_shard_size=SHIPPED_SHARD_BYTES)
        self.tokenizer.tokenizer.save_pretrained(folder)
