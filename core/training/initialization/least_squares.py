"""Starting values fitted on real batches, so that a freshly assembled stack already does what its priors did.

Each prior has grown up with its own tokens alone. In one stack every token meets all three parts.
Words pass the vision prior's blocks, noise passes those of both others.
Whatever these add destroys what the part further on needs.
Multimodal AdaLN (paper eq. 2-3) can let a token pass, the connectors (eq. 4-6) can treat modalities apart.
Here they start that way:

- words and noise enter the pre part on a few axes of their own, each with a marker that tells what it is;
- the gates of one of the two sets are closed, and the indicators choose it for tokens that are to pass:
  in the pre part all but pictures, in the base part noise, in the post part all but noise;
- the pre-connector hands words on as the language prior's embeddings;
- the post-connector's direct path gives noise back as the video prior embedded it;
- its transform reads words as the whole connector did before;
- the answers' projection leads back to what the language prior's head reads.

Least squares and logistic regression, one pass over a few batches, no gradient through the stack.
Training starts from here and opens what helps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM

from core.layers import Connector, MultimodalAdaLN
from core.model.contexts import StackInput
from core.model.decoder import HaploOmniModel
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.data.noise import NoiseBatch
from core.training.data.packing import PackedBatch
from core.training.initialization.prescaling import MODALITIES, modalities
from core.training.stages.losses import add_noise, training_input

MARKER_NORM = 1.5  # length of a marker in units of what it marks
TARGET_MARGIN = 8.0  # distance that an indicator should leave between a token's two scores
LINEAR = 4.0  # where SiLU is all but linear
RIDGE = 1e-4  # pull towards the values before, as a fraction of the features' variance
WORDS, TIMESTEP = MODALITIES.index("words"), MODALITIES.index("timestep")
GATE = 2  # the row of a modulation set


@dataclass
class _Tokens:
    """A batch on its way; ``kinds, ids`` [B, S] (kind -1: padding; id -1: noise)."""

    stream: StackInput
    kinds: Tensor
    ids: Tensor

    @property
    def real(self) -> Tensor:
        """Where no padding is [B, S]."""
        return self.kinds >= 0


class _Stream:
    """Several batches that go through the decoder together, half a block at a time."""

    def __init__(
        self, model: HaploOmniForConditionalGeneration, scheduler: Any, batches: Sequence[Any]
    ) -> None:
        self.core = model.model
        self.batches = [_embedded(model, scheduler, batch) for batch in batches]
        self.kinds = torch.cat([batch.kinds[batch.real] for batch in self.batches])  # (N,)
        self.ids = torch.cat([batch.ids[batch.real] for batch in self.batches])

    @property
    def features(self) -> Tensor:
        """All real tokens where they are now [N, D]."""
        return torch.cat([batch.stream.embeds[batch.real] for batch in self.batches])

    def through(self, step: Callable[[Tensor], Tensor]) -> None:
        """Move all tokens [B, S, D] on through what treats every token alone: a norm, a connector."""
        for batch in self.batches:
            batch.stream = batch.stream._replace(embeds=step(batch.stream.embeds))

    def through_attention(self, number: int) -> None:
        """Move on through the first half of a block."""
        block: Any = self.core.layers[number]
        for batch in self.batches:
            hidden, position_ids, context = batch.stream
            rotary = self.core.rotary(self.core.part_of_block[number], position_ids, hidden.dtype)
            batch.stream = batch.stream._replace(embeds=block.attend(hidden, rotary, context))


def _embedded(
    model: HaploOmniForConditionalGeneration, scheduler: Any, batch: PackedBatch | NoiseBatch
) -> _Tokens:
    """What enters the decoder for a batch."""
    device = model.lm_head.weight.device
    stream = training_input(model, scheduler, batch, device)
    length = stream.embeds.shape[1]
    ids = F.pad(batch.ids.to(device), (0, length - batch.ids.shape[1]), value=-1)
    return _Tokens(stream, modalities(model, batch, length).to(device), ids)


@torch.no_grad()
def fit_initial_weights(
    model: HaploOmniForConditionalGeneration,
    language: Qwen2ForCausalLM,
    scheduler: Any,
    batches: Sequence[PackedBatch | NoiseBatch],
) -> dict[str, float]:
    """Fit the starting values of everything between the priors.

    Args:
        model: just assembled; the modulation sets of its pre and base part are neutral.
        language: the prior whose embeddings the base part expects and whose states its last norm gives.
        scheduler: adds the noise.
        batches: of everything that the model is to learn from.

    Returns:
        How well it went: the least share of tokens that an indicator knows, and shares of variance.
        These are what words keep on their way into the base part, through the post-connector and back,
        and what noise keeps on its way into the post part.
    """
    # words and noise enter on axes of their own
    noise = _noise_tokens(model, scheduler, batches)  # (M, post width)
    embeddings: Any = language.get_input_embeddings()
    words: Tensor = embeddings.weight.float()  # (V, base width)
    _enter(model, words, words_used(batches).to(words.device), noise)
    stream = _Stream(model, scheduler, batches)
    is_noise, is_word = stream.kinds >= TIMESTEP, stream.kinds == WORDS  # (N,)
    core = model.model
    first, second = core.part_starts
    known, report = [1.0], {}
    stream.through(core.enter_pre)
    for number, block in enumerate(core.layers):
        # between the parts: the connectors, on what reaches them
        if number == first:
            wanted = words[stream.ids[is_word]]
            report["words kept"] = _fit_affine(core.pre_connector, stream.features[is_word], wanted)
            stream.through(core.enter_base)
        if number == second:
            stream.through(core.norm)
            report |= _fit_post_connector(core, stream.features, is_noise, noise)
            stream.through(core.enter_post)
        # in a block: the tokens that are to pass find the gates of their set closed
        latent = is_noise | is_word if number < first else is_noise
        known.append(_let_pass(block.input_layernorm, number >= second, stream.features, latent))
        stream.through_attention(number)
        known.append(_let_pass(block.post_attention_layernorm, number >= second, stream.features, latent))
        stream.through(block.feed_forward)
    return {name: round(value, 5) for name, value in {"known": min(known), **report}.items()}


def _let_pass(norm: MultimodalAdaLN, in_post: bool, tokens: Tensor, latent: Tensor) -> float:
    """Close the gate of one set, and fit the indicator to choose by token.

    Args:
        norm: of a block.
        in_post: whether the condition set's tokens pass, as in the post part; elsewhere the latent set's do.
        tokens: what the norm reads [N, D].
        latent: whose set is the latent one [N].

    Returns:
        The share of tokens that the indicator knows.
    """
    closed = norm.SSG_C if in_post else norm.SSG_L
    closed[GATE] = 0.0
    return _fit_choice(norm.indicator, norm.indicator_input(tokens), latent)


def words_used(batches: Iterable[PackedBatch | NoiseBatch]) -> Tensor:
    """Ids of all tokens that stand in the batches, each once [V']; padding is none of them."""
    return torch.cat([batch.ids[batch.attention_mask.bool()] for batch in batches]).unique()


def _noise_tokens(model: HaploOmniForConditionalGeneration, scheduler: Any, batches: Sequence[Any]) -> Tensor:
    """Timestep and noise tokens at the post part's width, in the order of a stream's: [M, post width]."""
    device = model.lm_head.weight.device
    tokens = [torch.zeros(0, model.model.post.hidden_size, device=device)]
    for batch in batches:
        if isinstance(batch, NoiseBatch):
            mixed, _, timestep = add_noise(scheduler, batch, device)
            made = torch.cat(model.embed_latents(mixed, model.embed_time(timestep)), dim=1)  # (B, 1 + N, D)
            tokens.append(made.float().flatten(0, 1))
    return torch.cat(tokens)


def _enter(model: HaploOmniForConditionalGeneration, words: Tensor, used: Tensor, noise: Tensor) -> None:
    """Words and noise take the pre part's axes but three; two of these mark them.

    No token has a mean, so that a LayerNorm takes nothing but the length.
    The markers make all lengths much alike.

    Args:
        words: the language prior's embeddings [V, base width].
        used: ids of the words that matter.
        noise: timestep and noise tokens [M, post width].
    """
    width = model.model.pre.hidden_size
    # orthonormal rows, the first of which is the mean
    axes = torch.cat([torch.ones(width, 1), torch.randn(width, width - 1)], dim=1)
    frame = torch.linalg.qr(axes).Q.T.to(words)  # (width, width)
    passing, which, content = frame[1], frame[2], frame[3:]
    size = width**0.5 / (1 + MARKER_NORM**2) ** 0.5  # a normed token has the length sqrt(width)
    marker = MARKER_NORM * size * 0.5**0.5

    def main_axes(tokens: Tensor) -> tuple[Tensor, Tensor]:
        """A map [D, width] that makes centred tokens ``size`` long, and their centre [D]."""
        centre = tokens.mean(0)
        rest = tokens - centre
        axes = torch.linalg.svd(rest.T @ rest).Vh[: len(content)]
        return axes.T @ content[: len(axes)] * (size / rest.square().sum(-1).mean().sqrt()), centre

    axes, centre = main_axes(words[used])
    model.model.embed_tokens.weight.copy_((words - centre) @ axes + marker * (passing + which))
    if len(noise):
        axes, centre = main_axes(noise)
        model.v2t_projector.weight.copy_(axes.T)
        model.v2t_projector.bias.copy_(marker * (passing - which) - centre @ axes)


def _fit_affine(connector: Connector, features: Tensor, wanted: Tensor) -> float:
    """Let the direct path make of a connector's tokens [K, D] what is wanted; returns the share explained."""
    scaled = wanted if connector.scale is None else wanted / connector.scale
    return _least_squares(connector.affine, connector.affine_input(features), scaled)


def _fit_post_connector(
    core: HaploOmniModel, given: Tensor, is_noise: Tensor, noise: Tensor
) -> dict[str, float]:
    """On the direct path noise becomes what it was, on the transform other tokens what they became before.

    Args:
        given: what reaches the connector [N, base width].
        is_noise: [N].
        noise: what the noise was [M, post width].

    Returns:
        The shares of variance kept, and the share of tokens that the connector's indicator knows.
    """
    connector: Any = core.post_connector
    others, report = given[~is_noise], {}
    wanted = connector(others)
    # noise: the direct path
    if len(noise):
        report["noise kept"] = _fit_affine(connector, given[is_noise], noise)
    # others: the transform, with its SiLU where it is all but linear
    norm, _, last = connector.transform
    norm.weight.fill_(1.0)
    norm.bias.fill_(LINEAR)
    direct = connector.direct(given)
    report["words kept by the post-connector"] = _least_squares(
        last, connector.transform[:2](direct[~is_noise]), wanted
    )
    # which of the two: the connector's indicator
    read = direct if connector.pre_norm is None else connector.transform(direct)
    indicator = connector.connector_indicator
    report["known by the post-connector"] = _fit_choice(indicator[1], indicator[0](read), ~is_noise)
    # and the way back to what lm_head reads
    answers = core.post_norm(connector(others))
    report["words kept to the answer"] = _least_squares(core.post_linear, answers, others / core.post_scale)
    return report


def _least_squares(layer: nn.Linear, features: Tensor, wanted: Tensor) -> float:
    """Ridge regression from features [K, in] to what is wanted [K, out], towards the layer's values before.

    Returns:
        The share of the variance that the layer explains.
    """
    rest = wanted - layer(features)  # (K, out)
    centre: Tensor | float = 0.0
    middle: Tensor | float = 0.0
    if layer.bias is not None:
        centre, middle = features.mean(0), rest.mean(0)
    # the normal equations, in float64
    seen = (features - centre).double()  # (K, in)
    gram = seen.T @ seen
    gram.diagonal().add_(RIDGE * float(gram.diagonal().mean()))
    change = torch.linalg.solve(gram, seen.T @ (rest - middle).double()).T.to(layer.weight)
    layer.weight.add_(change)
    if layer.bias is not None:
        layer.bias.add_(middle - change @ centre)
    left = wanted - layer(features)
    return 1.0 - float(left.square().sum() / (wanted - wanted.mean(0)).square().sum())


def _fit_choice(indicator: nn.Linear, features: Tensor, first: Tensor) -> float:
    """Logistic regression of which tokens choose the first score, both sides counting alike.

    Args:
        indicator: two scores of a token.
        features: what it reads [N, D].
        first: [N].

    Returns:
        The share of tokens whose choice it knows.
    """
    # all tokens on one side: a bias says so
    if bool(first.all()) or not bool(first.any()):
        sign = 1.0 if bool(first.any()) else -1.0
        indicator.weight.zero_()
        indicator.bias.copy_(torch.tensor([0.5, -0.5]) * (sign * TARGET_MARGIN))
        return 1.0
    wanted = first.float()
    share = wanted.mean()
    counts = torch.where(first, 0.5 / share, 0.5 / (1 - share))  # (N,)
    spread = features.std(0).clamp_min(1e-3)
    weight = torch.zeros(features.shape[1], device=features.device, requires_grad=True)
    offset = torch.zeros((), device=features.device, requires_grad=True)
    steps = torch.optim.LBFGS([weight, offset], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        steps.zero_grad()
        scores = (features / spread) @ weight + offset
        total = (
            F.binary_cross_entropy_with_logits(scores, wanted, weight=counts) + 1e-4 * weight.square().sum()
        )
        total.backward()
        return total

    with torch.enable_grad():
        steps.step(loss)
    weight = weight.detach() / spread
    offset = offset.detach()
    # as loud as it takes for all but one in a hundred tokens to be decided by the margin
    scores = features @ weight + offset
    margins = torch.where(first, scores, -scores)
    half = 0.5 * (TARGET_MARGIN / margins.quantile(0.01).clamp_min(0.1)).clamp(1.0, 100.0)
    indicator.weight.copy_(torch.stack([weight, -weight]) * half)
    indicator.bias.copy_(torch.stack([offset, -offset]) * half)
    return float((margins > 0).float().mean())
