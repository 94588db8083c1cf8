"""The three priors of a HaploOmni: loading them, and refusing those that its parts cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from transformers import AutoTokenizer, CLIPVisionModel, PreTrainedModel, Qwen2ForCausalLM

from core.config import SPATIAL_INTERPOLATION_SCALE, TEMPORAL_INTERPOLATION_SCALE, TIME_EMBED_DIM
from core.errors import CheckpointError, ConfigError
from core.files import read_plain_json
from core.geometry import LATENT_CHANNELS, LATENT_PATCH

IMAGE_TOKEN = "<image>"
VIDEO_TOKEN = "<video>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
# diffusers' names and transformers'
VIDEO_ACTIVATIONS = {"gelu-approximate": "gelu_pytorch_tanh", "gelu": "gelu"}


def refuse_foreign(kind: type, file: Path) -> None:
    """Refuse a folder whose config names another class.

    Raises:
        ConfigError: with the class found and the class needed.
    """
    declared = read_plain_json(file)
    names = [declared.get("_class_name"), *(declared.get("architectures") or [])]
    known = [name for name in names if name]
    allowed = {kind.__name__}
    if kind is CLIPVisionModel:
        allowed |= {"CLIPModel", "CLIPVisionModelWithProjection"}
    if known and allowed.isdisjoint(known):
        raise ConfigError(f"{file.parent} holds a {known[0]}; a {kind.__name__} is needed.")


def load_prior(kind: type, name: str, subfolder: str = "") -> Any:
    """One prior from a local folder or hub id, safetensors only, in float32.

    Args:
        subfolder: where it stands in a pipeline's folder; a folder or hub id without one is read itself.

    Raises:
        ConfigError: the folder names another class.
        CheckpointError: it cannot be loaded as this class, or weights are missing.
    """
    # where to look, in this order: (folder or hub id, subfolder)
    places = [(name, "")]
    folder = Path(name)
    if folder.is_dir():
        if (folder / subfolder).is_dir():
            folder = folder / subfolder
        if (folder / "config.json").is_file():
            refuse_foreign(kind, folder / "config.json")
        places = [(str(folder), "")]
    elif subfolder:
        places.insert(0, (name, subfolder))

    # diffusers and transformers have different words for the precision
    precision = "torch_dtype" if kind is CogVideoXTransformer3DModel else "dtype"
    wanted: dict[str, Any] = {precision: torch.float32, "use_safetensors": True, "output_loading_info": True}
    failure: Exception | None = None
    for place, inside in places:
        try:
            prior, info = kind.from_pretrained(place, subfolder=inside, **wanted)  # type: ignore[attr-defined]
        except Exception as error:
            failure = failure or error
            continue
        if info["missing_keys"]:
            lacking = ", ".join(sorted(info["missing_keys"])[:3])
            raise CheckpointError(
                f"'{name}' lacks weights of a {kind.__name__}: {lacking} and possibly more."
            )
        return prior.eval()
    raise CheckpointError(f"'{name}' cannot be loaded as a {kind.__name__}: {failure}") from failure


def load_tokenizer(name: str) -> Any:
    """The language prior's tokenizer, with the tokens of chats and media added where it has none.

    Raises:
        CheckpointError: there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:
        raise CheckpointError(f"'{name}' has no tokenizer that can be loaded: {error}") from error
    tokenizer.add_tokens([IMAGE_TOKEN, VIDEO_TOKEN, TURN_START, TURN_END], special_tokens=True)
    return tokenizer


def token_settings(tokenizer: Any) -> dict[str, Any]:
    """Ids of placeholders, end and padding, as :func:`core.weights.priors.build_from_priors` takes them."""
    image, video, end = tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, VIDEO_TOKEN, TURN_END])
    pad = tokenizer.pad_token_id
    ends = {"eos_token_id": end, "pad_token_id": end if pad is None else pad}
    return {"image_token": image, "video_token": video, **ends}


def check_priors(vision: object, language: object, video: object) -> None:
    """Refuse priors that the three parts cannot express.

    Raises:
        ConfigError: with the value found and the value needed.
    """
    wanted: tuple[tuple[str, object, type], ...] = (
        ("vision", vision, CLIPVisionModel),
        ("language", language, Qwen2ForCausalLM),
        ("video", video, CogVideoXTransformer3DModel),
    )
    for name, prior, needed in wanted:
        if not isinstance(prior, needed):
            raise ConfigError(f"The {name} prior is a {type(prior).__name__}; a {needed.__name__} is needed.")
    assert isinstance(vision, PreTrainedModel) and isinstance(language, PreTrainedModel)
    assert isinstance(video, CogVideoXTransformer3DModel)
    _need("vision", vision.config, num_channels=3)
    _need("language", language.config, use_sliding_window=False)
    _check_video(video.config)
    width = language.config.hidden_size
    heads = language.config.num_attention_heads
    head_dim = getattr(language.config, "head_dim", None) or width // heads
    if head_dim * heads != width:
        raise ConfigError(
            f"The language prior has {heads} heads of {head_dim}, but a width of {width}; "
            "they must multiply to it."
        )
    if vision.config.hidden_size > width:
        raise ConfigError(
            f"The vision prior is {vision.config.hidden_size} wide, the language prior {width}: "
            "words enter at the vision prior's width, so it must not be the larger one."
        )


def _check_video(config: Any) -> None:
    _need(
        "video",
        config,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        patch_size=LATENT_PATCH,
        patch_size_t=None,
        time_embed_dim=TIME_EMBED_DIM,
        use_rotary_positional_embeddings=False,
        timestep_activation_fn="silu",
        flip_sin_to_cos=True,
        freq_shift=0,
        attention_bias=True,
        spatial_interpolation_scale=SPATIAL_INTERPOLATION_SCALE,
        temporal_interpolation_scale=TEMPORAL_INTERPOLATION_SCALE,
    )
    if config.activation_fn not in VIDEO_ACTIVATIONS:
        raise ConfigError(
            f"The video prior has activation_fn = {config.activation_fn}; "
            f"HaploOmni needs one of {', '.join(VIDEO_ACTIVATIONS)}."
        )


def _need(name: str, config: Any, **values: object) -> None:
    """Refuse the first of a prior's settings that has another value; one that it does not have is right."""
    for key, value in values.items():
        found = getattr(config, key, value)
        if found != value:
            raise ConfigError(f"The {name} prior has {key} = {found}; HaploOmni needs {value}.")
