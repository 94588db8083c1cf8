"""Configuration of a HaploOmni, in the released ``config.json`` layout."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from core.errors import ConfigError

TIME_EMBED_DIM = 512
# CogVideoX-2B's 3-D sine-cosine positions
SPATIAL_INTERPOLATION_SCALE = 1.875
TEMPORAL_INTERPOLATION_SCALE = 1.0


@dataclass(frozen=True)
class PartConfig:
    """One of the three parts of the decoder (spec section 1): plain numbers, validated once.

    Args:
        hidden_size: width D of the part's states.
        intermediate_size: width of its MLPs.
        num_hidden_layers: blocks.
        num_attention_heads, num_key_value_heads: heads of queries, and of keys and values.
        norm_mode: ``"layernorm"`` or ``"rmsnorm"``.
        use_pe: whether queries and keys are rotated by their positions.
        attention_rope: with a rotary table of its own, instead of the base part's.
        use_qk_norm: whether queries and keys are normalized.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    hidden_act: str
    norm_mode: str
    norm_eps: float
    use_pe: bool
    attention_rope: bool
    rope_theta: float
    use_qk_norm: bool

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_attention_heads

    def validate(self, name: str) -> None:
        """Raises ConfigError, with the part's ``name``, when the numbers do not fit together."""
        for key in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
        ):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name}: {key} is {value!r}; it must be a whole number above 0.")
        for key in ("norm_eps", "rope_theta"):
            value = getattr(self, key)
            if not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name}: {key} is {value!r}; it must be a number above 0.")
        if self.hidden_act not in ACT2FN:
            raise ConfigError(f"{name}: hidden_act {self.hidden_act!r} is unknown to transformers.")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"{name}: hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}."
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"{name}: num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}."
            )
        if self.norm_mode not in ("layernorm", "rmsnorm"):
            raise ConfigError(f"{name}: norm_mode '{self.norm_mode}' is unknown; use layernorm or rmsnorm.")


@dataclass(frozen=True)
class ConnectorConfig:
    """A connector between two parts (paper eq. 4-6)."""

    use_pre_norm: bool = False
    use_affine_bias: bool = False


def is_token(value: object, vocab_size: int = 2**31) -> bool:
    """Whether a value can be the id of a token, or None for no token."""
    return value is None or (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocab_size
    )


class HaploOmniConfig(PreTrainedConfig):
    """The released configuration: the base part at the top level, the other parts and connectors as dicts.

    Args:
        base_config, pre_config, post_config: settings of the three parts.
            What the base part leaves out comes from the top level.
        pre_connector, post_connector: ``use_pre_norm`` and ``use_affine_bias`` of each connector.
        image_token_index, video_token_index: ids of the placeholder tokens.
        image_grid_pinpoints: (height, width) resolutions an image may be laid out on, in pixels.
        image_aspect_ratio: ``anyres_max_K``: grids above K tiles of patches are shrunk.
        visual_attention: ``"grouped"``: an image or video frame sees itself fully, by start indices
            (spec section 3).
            ``"causal"``: plain causal attention in understanding.
            The released program emits start indices but its logits are those of plain causal attention, so a
            released config, which has no such key, means causal.
        patch_size, default_image_size: pixels of a patch side and of a tile side.

    Raises:
        ConfigError: numbers that do not fit together.
    """

    model_type = "HaploOmni"
    keys_to_ignore_at_inference = ["cache", "past_key_values"]

    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int = 4
    hidden_act: str = "silu"
    norm_mode: str = "rmsnorm"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1000000.0
    use_pe: bool = True
    attention_rope: bool = False
    use_qk_norm: bool = False
    max_position_embeddings: int = 32768
    initializer_range: float = 0.02
    attention_dropout: float = 0.0
    use_cache: bool = True
    tie_word_embeddings: bool = False
    base_config: dict[str, Any] | None = None
    pre_config: dict[str, Any] | None = None
    post_config: dict[str, Any] | None = None
    pre_connector: dict[str, Any] | None = None
    post_connector: dict[str, Any] | None = None
    image_token_index: int = 151646
    video_token_index: int = 151647
    image_aspect_ratio: str = "anyres_max_9"
    image_grid_pinpoints: list[list[int]] | None = None
    image_newline: bool = True
    visual_attention: str = "causal"
    patch_size: int = 14
    default_image_size: int = 224
    eos_token_id: int | list[int] | None = 151645
    pad_token_id: int | None = 151643

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("rope_scaling", None)  # null in the released file; no other value exists
        super().__post_init__(**kwargs)
        if self.image_grid_pinpoints is None:
            side = self.default_image_size
            self.image_grid_pinpoints = [
                [side * h, side * w] for h in range(1, 4) for w in range(1, 4) if h * w <= 6
            ]
        for name in ("base", "pre", "post"):
            self.part(name).validate(f"{name}_config")
        self._validate_pictures()
        if self.visual_attention not in ("causal", "grouped"):
            raise ConfigError(
                f"visual_attention '{self.visual_attention}' is unknown; use causal or grouped."
            )
        for name, part in (("pre", self.part("pre")), ("post", self.part("post"))):
            shared = part.use_pe and not part.attention_rope
            if shared and part.head_dim != self.part("base").head_dim:
                raise ConfigError(
                    f"{name}_config uses the model-wide rotary table but its head width {part.head_dim} is "
                    f"not the base part's {self.part('base').head_dim}; "
                    "set use_pe=false or attention_rope=true."
                )

    def _validate_pictures(self) -> None:
        """Raises ConfigError for tiles, layouts or placeholder tokens that cannot be."""
        for key in ("vocab_size", "max_position_embeddings", "patch_size", "default_image_size"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} is {getattr(self, key)}; it must be a whole number above 0.")
        if self.default_image_size % self.patch_size:
            raise ConfigError(
                f"default_image_size {self.default_image_size} is not a multiple of "
                f"patch_size {self.patch_size}."
            )
        for key in ("eos_token_id", "pad_token_id", "image_token_index", "video_token_index"):
            given = getattr(self, key)
            tokens = given if isinstance(given, list) else [given]
            if not all(is_token(token) for token in tokens):
                raise ConfigError(f"{key} is {given!r}, which is no token id.")
        limit = self.image_aspect_ratio.partition("anyres_max_")[2]
        if limit and not limit.isdecimal():
            raise ConfigError(f"image_aspect_ratio {self.image_aspect_ratio!r} is unknown; use anyres_max_9.")
        side = self.default_image_size
        for pinpoint in self.image_grid_pinpoints or ():
            if len(pinpoint) != 2 or any(length < side or length % side for length in pinpoint):
                raise ConfigError(
                    f"image_grid_pinpoints holds {pinpoint}; every entry is two multiples of {side} pixels."
                )
        if not self.image_grid_pinpoints:
            raise ConfigError("image_grid_pinpoints is empty; a picture needs at least one layout.")

    def part(self, name: str) -> PartConfig:
        """The settings of part ``"pre"``, ``"base"`` or ``"post"``.

        What the base part leaves out comes from the top level; a part that is not there has its prior's size.
        """
        given = getattr(self, f"{name}_config") or _PRIORS[name]

        def pick(key: str, default: Any) -> Any:
            """The part's own value, else the top level's for the base part, else ``default``."""
            if name == "base":
                default = getattr(self, key)
            return given.get(key, default)

        return PartConfig(
            hidden_size=pick("hidden_size", None),
            intermediate_size=pick("intermediate_size", None),
            num_hidden_layers=pick("num_hidden_layers", None),
            num_attention_heads=pick("num_attention_heads", None),
            num_key_value_heads=pick("num_key_value_heads", given.get("num_attention_heads")),
            hidden_act=pick("hidden_act", "silu"),
            norm_mode=pick("norm_mode", "layernorm"),
            norm_eps=pick("rms_norm_eps", 1e-5),
            use_pe=pick("use_pe", True),
            attention_rope=pick("attention_rope", False),
            rope_theta=pick("rope_theta", 10000.0),
            use_qk_norm=pick("use_qk_norm", False),
        )

    def connector(self, name: str) -> ConnectorConfig:
        """The settings of connector ``"pre"`` or ``"post"``."""
        given = getattr(self, f"{name}_connector") or {}
        return ConnectorConfig(
            bool(given.get("use_pre_norm", False)), bool(given.get("use_affine_bias", False))
        )

    @property
    def patches_per_side(self) -> int:
        """Patches along one side of a tile."""
        return self.default_image_size // self.patch_size

    @property
    def anyres_max_tiles(self) -> int | None:
        """K of ``anyres_max_K``: larger grids are shrunk; None where the layout sets no limit."""
        _, _, limit = self.image_aspect_ratio.partition("anyres_max_")
        return int(limit) if limit else None

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:  # noqa: ARG002
        """What sizes key-value caches: this configuration with the layers of all three parts counted."""
        if not decoder:
            return self
        flat = copy.copy(self)
        flat.num_hidden_layers = sum(self.part(name).num_hidden_layers for name in ("pre", "base", "post"))
        return flat


_PRIORS: dict[str, dict[str, Any]] = {
    "base": {},
    "pre": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_act": "quick_gelu",
        "norm_mode": "layernorm",
        "use_pe": False,
    },
    "post": {
        "hidden_size": 1920,
        "intermediate_size": 7680,
        "num_hidden_layers": 30,
        "num_attention_heads": 30,
        "hidden_act": "gelu_pytorch_tanh",
        "norm_mode": "layernorm",
        "use_pe": False,
        "use_qk_norm": True,
    },
}
"""The released 9B sizes, as the three priors imply them (spec section 1)."""
