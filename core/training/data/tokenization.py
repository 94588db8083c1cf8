"""Token ids and labels of what is said about scenes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from core.scenes.templates import QAPair

IGNORE = -100  # the label of tokens whose prediction does not count


class CachedTokenizer:
    """Token ids of the few thousand sentences of the scenes' language, each encoded once.

    Args:
        tokenizer: of the model's family, with its ``<image>`` and ``<video>`` tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.image: int = tokenizer.convert_tokens_to_ids("<image>")  # type: ignore[assignment]
        self.video: int = tokenizer.convert_tokens_to_ids("<video>")  # type: ignore[assignment]
        # nothing looks at padding, so that a tokenizer without a token for it will do
        self.pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self.encode = lru_cache(maxsize=200_000)(self._encode)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_turn(self, qa: QAPair, opening: str = "") -> tuple[list[int], list[int]]:
        """Ids and labels from the question to the end of the answer; only the answer counts."""
        question = self.encode(f"{opening}{qa.question}<|im_end|>\n<|im_start|>assistant\n")
        answer = self.encode(f"{qa.answer}<|im_end|>")
        tail = self.encode("\n")
        labels = [IGNORE] * len(question) + list(answer) + [IGNORE] * len(tail)
        return [*question, *answer, *tail], labels

    def encode_dialogue(self, dialogue: Sequence[QAPair]) -> tuple[list[int], list[int]]:
        """Ids and labels of all turns; what opens the first one stands before the medium."""
        ids, labels = self.encode_turn(dialogue[0])
        for qa in dialogue[1:]:
            more_ids, more_labels = self.encode_turn(qa, opening="<|im_start|>user\n")
            ids += more_ids
            labels += more_labels
        return ids, labels

    def encode_prompt(self, text: str) -> tuple[int, ...]:
        """Ids of a generation prompt in its chat template."""
        return self.encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n")
