"""The small model's tokenizer: byte-level BPE in the released (Qwen2) format, trained on scenes in words."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import Qwen2Tokenizer

from core.processor.prompts import CHATML_TEMPLATE
from core.scenes.small_talk import corpus

SPECIAL = ("<|im_end|>", "<|endoftext|>", "<|im_start|>", "<image>", "<video>")
VOCABULARY = 2048  # tokens
# Qwen2's word pattern
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer() -> Qwen2Tokenizer:
    """Train on the corpus; special tokens stand at the end of the vocabulary, as in the release."""
    bpe = Tokenizer(BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*corpus(), *("user", "assistant", "system") * 2000], trainer)
    bpe.add_special_tokens(list(SPECIAL))
    return Qwen2Tokenizer(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "<image>", "<video>"],
        padding_side="left",
        chat_template=CHATML_TEMPLATE,
    )
