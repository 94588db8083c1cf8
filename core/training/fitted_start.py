"""Starting values fitted on real batches, so that a freshly assembled stack already does what its priors did.

Each prior has grown up with its own tokens alone. In one stack every token meets all three parts: words pass the vision
prior's blocks, noise passes those of both others, and whatever these add destroys what the part further on needs. Multimodal
AdaLN (paper eq. 2-3) can let a token pass, and the connectors (eq. 4-6) can treat modalities apart; here they start that way:

- words and noise enter the pre part on a few axes of their own, each with a mark that tells what it is;
- the gates of one of the two sets are closed, and the indicators are fitted to choose it for tokens that are to pass: in the
  pre part all but pictures, in the base part noise, in the post part all but noise;
- the pre-connector hands words on as the language prior's embeddings;
- the post-connector's direct path gives noise back as the video prior embedded it, its transform reads words as the whole
  connector did before; the answers' projection leads back to what the language prior's head reads.

Least squares and logistic regression, three passes over a few batches, no gradient through the stack. Training starts from
here and opens what helps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Qwen2ForCausalLM

from core.layers import AttentionContext, Connector
from core.model.decoder import HaploOmniModel
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.batches import NoiseBatch, TalkBatch
from core.training.losses import diffusion_loss, next_token_loss
from core.training.prescaling import MODALITIES, modalities

MARK = 1.5  # length of a mark in units of what it marks
CERTAIN = 8.0  # distance that an indicator should leave between a token's two scores
LINEAR = 4.0  # where SiLU is all but linear
RIDGE = 1e-4  # pull towards the values before, as a fraction of the features' variance
WORDS, TIMESTEP = MODALITIES.index("words"), MODALITIES.index("timestep")


class _CaughtError(Exception):
    """What a module was called with; ends the pass."""


@dataclass
class _Tokens:
    """A batch on its way: ``hidden`` [B, S, D], ``position_ids, kinds, ids`` [B, S] (kind -1: padding; id -1: noise)."""

    hidden: Tensor
    position_ids: Tensor
    context: AttentionContext
    kinds: Tensor
    ids: Tensor

    @property
    def real(self) -> Tensor:
        """Where no padding is [B, S]."""
        return self.kinds >= 0


class _Stream:
    """Several batches that go through the stack together, one block at a time."""

    def __init__(self, model: HaploOmniForConditionalGeneration, scheduler: Any, batches: Sequence[Any]) -> None:
        self.batches = [_embedded(model, scheduler, batch) for batch in batches]
        self.core = model.model
        self.kinds = torch.cat([batch.kinds[batch.real] for batch in self.batches])  # (N,)
        self.ids = torch.cat([batch.ids[batch.real] for batch in self.batches])

    @property
    def features(self) -> Tensor:
        """All real tokens where they are now [N, D]."""
        return torch.cat([batch.hidden[batch.real] for batch in self.batches])

    def through(self, module: nn.Module) -> None:
        """Move on through a norm or a connector."""
        for batch in self.batches:
            batch.hidden = module(batch.hidden)

    def through_block(self, number: int) -> None:
        """Move on through a block."""
        for batch, hidden in zip(self.batches, self._after(number), strict=True):
            batch.hidden = hidden

    def read_by(self, module: nn.Module, block: int) -> Tensor:
        """What a module inside a block reads of all real tokens [N, D]; nothing moves."""
        caught: list[Tensor] = []
        hook = module.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
        try:
            for _ in self._after(block):
                pass
        finally:
            hook.remove()
        return torch.cat([features[batch.real] for batch, features in zip(self.batches, caught, strict=True)])

    def _after(self, block: int) -> Iterable[Tensor]:
        first, second = first_blocks(self.core)
        part = self.core.pre if block < first else self.core.base if block < second else self.core.post
        for batch in self.batches:
            yield self.core.run(self.core.layers[block : block + 1], part, batch.hidden, batch.position_ids, batch.context)


def _embedded(model: HaploOmniForConditionalGeneration, scheduler: Any, batch: TalkBatch | NoiseBatch) -> _Tokens:
    """What enters the stack for a batch."""

    def stop(_: nn.Module, given: tuple[Any, ...]) -> None:
        raise _CaughtError(given)

    device = model.lm_head.weight.device
    hook = model.model.register_forward_pre_hook(stop)
    try:
        if isinstance(batch, TalkBatch):
            next_token_loss(model, batch, device)
        else:
            diffusion_loss(model, scheduler, batch, device)
        raise AssertionError("the stack was not called")
    except _CaughtError as caught:
        embeds, position_ids, context = caught.args[0]
    finally:
        hook.remove()
    length = embeds.shape[1]
    ids = F.pad(batch.ids.to(device), (0, length - batch.ids.shape[1]), value=-1)
    return _Tokens(embeds, position_ids, context, modalities(model, batch, length).to(device), ids)


def first_blocks(core: HaploOmniModel) -> tuple[int, int]:
    """Numbers of the base part's first block and of the post part's."""
    return core.pre.num_hidden_layers, core.pre.num_hidden_layers + core.base.num_hidden_layers


@torch.no_grad()
def fit_start(
    model: HaploOmniForConditionalGeneration,
    language: Qwen2ForCausalLM,
    scheduler: Any,
    batches: Sequence[TalkBatch | NoiseBatch],
) -> dict[str, float]:
    """Fit the starting values of everything between the priors.

    Args:
        model: just assembled; the modulation sets of its pre and base part are neutral.
        language: the prior whose embeddings the base part expects and whose states its last norm gives.
        scheduler: adds the noise.
        batches: of everything that the model is to learn from.

    Returns:
        How well it went: the least share of tokens that an indicator knows, and the shares of variance that words keep on
        their way into the base part, through the post-connector and back, and noise on its way into the post part.
    """
    noise = _noise_tokens(model, scheduler, batches)
    words = language.get_input_embeddings().weight.float()
    used = torch.cat([batch.ids.flatten() for batch in batches]).unique().to(words.device)
    _enter(model, words, used, noise)
    stream = _Stream(model, scheduler, batches)
    core, report = model.model, {"known": 1.0}
    first, second = first_blocks(core)
    is_noise, is_word = stream.kinds >= TIMESTEP, stream.kinds == WORDS
    stream.through(core.pre_norm)
    for number, block in enumerate(core.layers):
        if number == first:
            read = _normed(core.pre_connector, stream.features[is_word])
            report["words kept"] = _fit_affine(core.pre_connector, read, words[stream.ids[is_word]])
            stream.through(core.pre_connector)
        if number == second:
            stream.through(core.norm)
            report |= _fit_post_connector(core, stream.features, is_noise, noise)
            stream.through(core.post_connector)
        for norm in (block.input_layernorm, block.post_attention_layernorm):
            (norm.SSG_C if number >= second else norm.SSG_L)[2] = 0.0
            latent = is_noise | is_word if number < first else is_noise
            known = _fit_choice(norm.indicator, stream.read_by(norm.indicator, number), latent)
            report["known"] = min(report["known"], known)
        stream.through_block(number)
    return {name: round(value, 5) for name, value in report.items()}


def _noise_tokens(model: HaploOmniForConditionalGeneration, scheduler: Any, batches: Sequence[Any]) -> Tensor:
    """Timestep and noise tokens at the post part's width, in the order of a stream's: [N, post width]."""
    caught: list[Tensor] = []
    hook = model.v2t_projector.register_forward_pre_hook(lambda _, given: caught.append(given[0].float()))
    tokens = [torch.zeros(0, model.v2t_projector.in_features)]
    try:
        for batch in batches:
            if isinstance(batch, NoiseBatch):
                caught.clear()
                _embedded(model, scheduler, batch)
                tokens.append(torch.cat(caught, dim=1).flatten(0, 1))
    finally:
        hook.remove()
    return torch.cat([token.to(tokens[-1]) for token in tokens])


def _enter(model: HaploOmniForConditionalGeneration, words: Tensor, used: Tensor, noise: Tensor) -> None:
    """Words and noise take the pre part's axes but three; two of these mark them.

    No token has a mean, so that a LayerNorm takes nothing but the length, and the marks make all lengths much alike.
    """
    width = model.model.pre.hidden_size
    frame = torch.linalg.qr(torch.cat([torch.ones(width, 1), torch.randn(width, width - 1)], dim=1)).Q.T.to(words)
    passing, which, content = frame[1], frame[2], frame[3:]
    size = width**0.5 / (1 + MARK**2) ** 0.5  # a normed token has the length sqrt(width)
    mark = MARK * size * 0.5**0.5

    def main_axes(tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[D, content], of which a centred token has the length ``size``, and the centre [D]."""
        rest = tokens - tokens.mean(0)
        axes = torch.linalg.svd(rest.T @ rest).Vh[: len(content)]
        return axes.T @ content[: len(axes)] * (size / rest.square().sum(-1).mean().sqrt()), tokens.mean(0)

    axes, centre = main_axes(words[used])
    model.model.embed_tokens.weight.copy_((words - centre) @ axes + mark * (passing + which))
    if len(noise):
        axes, centre = main_axes(noise)
        model.v2t_projector.weight.copy_(axes.T)
        model.v2t_projector.bias.copy_(mark * (passing - which) - centre @ axes)


def _normed(connector: Connector, features: Tensor) -> Tensor:
    """What a connector's affine map reads."""
    return features if connector.pre_norm is None else connector.pre_norm(features)


def _fit_affine(connector: Connector, read: Tensor, wanted: Tensor) -> float:
    return _least_squares(connector.affine, read, wanted if connector.scale is None else wanted / connector.scale)


def _fit_post_connector(core: HaploOmniModel, given: Tensor, is_noise: Tensor, noise: Tensor) -> dict[str, float]:
    """Noise becomes what it was on the direct path; all other tokens take the transform and become what they became before."""
    connector, others, report = core.post_connector, given[~is_noise], {}
    wanted = connector(others)
    read = _normed(connector, given)
    if len(noise):
        report["noise kept"] = _fit_affine(connector, read[is_noise], noise)
    norm, _, last = connector.transform
    norm.weight.fill_(1.0)
    norm.bias.fill_(LINEAR)
    direct = connector.affine(read) if connector.scale is None else connector.affine(read) * connector.scale
    report["words kept by the post-connector"] = _least_squares(last, connector.transform[:2](direct[~is_noise]), wanted)
    chooses = direct if connector.pre_norm is None else connector.transform(direct)
    indicator = connector.connector_indicator
    report["known by the post-connector"] = _fit_choice(indicator[1], indicator[0](chooses), ~is_noise)
    answers = core.post_norm(connector(others))
    report["words kept to the answer"] = _least_squares(core.post_linear, answers, others / core.post_scale)
    return report


def _least_squares(layer: nn.Linear, features: Tensor, wanted: Tensor) -> float:
    """Ridge regression towards the layer's values before; returns the share of the variance that it explains."""
    rest = wanted - layer(features)
    centre, middle = (features.mean(0), rest.mean(0)) if layer.bias is not None else (0.0, 0.0)
    seen = (features - centre).double()
    gram = seen.T @ seen
    gram.diagonal().add_(RIDGE * float(gram.diagonal().mean()))
    change = torch.linalg.solve(gram, seen.T @ (rest - middle).double()).T.to(layer.weight)
    layer.weight.add_(change)
    if layer.bias is not None:
        layer.bias.add_(middle - change @ centre)
    left = wanted - layer(features)
    return 1.0 - float(left.square().sum() / (wanted - wanted.mean(0)).square().sum())


def _fit_choice(indicator: nn.Linear, features: Tensor, first: Tensor) -> float:
    """Logistic regression of which tokens [N] choose the first score, both sides counting alike; returns the share known."""
    if bool(first.all()) or not bool(first.any()):
        indicator.weight.zero_()
        indicator.bias.copy_(torch.tensor([0.5, -0.5]) * (CERTAIN if bool(first.any()) else -CERTAIN))
        return 1.0
    wanted, share = first.float(), first.float().mean()
    counts = torch.where(first, 0.5 / share, 0.5 / (1 - share))
    spread = features.std(0).clamp_min(1e-3)
    weight = torch.zeros(features.shape[1], device=features.device, requires_grad=True)
    offset = torch.zeros((), device=features.device, requires_grad=True)
    steps = torch.optim.LBFGS([weight, offset], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        steps.zero_grad()
        scores = (features / spread) @ weight + offset
        total = F.binary_cross_entropy_with_logits(scores, wanted, weight=counts) + 1e-4 * weight.square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        steps.step(loss)
    weight, offset = weight.detach() / spread, offset.detach()
    scores = features @ weight + offset
    margins = torch.where(first, scores, -scores)
    half = 0.5 * (CERTAIN / margins.quantile(0.01).clamp_min(0.1)).clamp(1.0, 100.0)
    indicator.weight.copy_(torch.stack([weight, -weight]) * half)
    indicator.bias.copy_(torch.stack([offset, -offset]) * half)
    return float((margins > 0).float().mean())
