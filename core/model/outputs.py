"""What the model gives out, in the form that the installed transformers reads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F
from transformers import Cache
from transformers.generation import GenerateDecoderOnlyOutput
from transformers.utils import ModelOutput

from core.errors import RequestError
from core.model.contexts import PromptKVCache

# transformers 5.24 renamed ``past_key_values`` to ``cache`` in every output;
# ``generate`` reads only its own version's name
CACHE_FIELD = "cache" if "cache" in GenerateDecoderOnlyOutput.__dataclass_fields__ else "past_key_values"


@dataclass
class HaploOmniOutput(ModelOutput):
    """What one forward pass gives: words (``logits``), noise (``sample``) or a prompt's ``prefix``.

    Args:
        loss: scalar, mean over the labels.
        logits: [B, S, V].
        cache: the grown one (``past_key_values`` before transformers 5.24).
        sample: the predicted velocity [B, F, 16, h, w].
        prefix: one :class:`PromptKVCache` a row.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    if CACHE_FIELD == "cache":
        cache: Cache | None = None
    else:
        past_key_values: Cache | None = None
    sample: Tensor | None = None
    prefix: list[PromptKVCache] | None = None


def next_token_loss(logits: Tensor, labels: Tensor | None) -> Tensor | None:
    """Mean cross-entropy of logits [B, S, V] against labels [B, S] one place further on, -100 left out."""
    if labels is None:
        return None
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)


def refuse_states(options: dict[str, object]) -> None:
    """Raises RequestError when ``options`` of a forward pass ask for hidden states or attentions."""
    if options.get("output_hidden_states") or options.get("output_attentions"):
        raise RequestError("This model gives out no hidden states and no attentions; leave output_... out.")
