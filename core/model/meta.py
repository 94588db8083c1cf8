"""What a configuration's model holds: the model itself on PyTorch's meta device, which keeps no values."""

from __future__ import annotations

import torch

from core.config import HaploOmniConfig
from core.model.modeling import HaploOmniForConditionalGeneration


def tensor_shapes(config: HaploOmniConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a checkpoint, by its name.

    The 2,241 tensors of 9B take a third of a second and no memory.
    """
    with torch.device("meta"):
        model = HaploOmniForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
