"""Which clips can be made: legal sizes and lengths, the shape of their latents, the tokens they take."""

from __future__ import annotations

LATENT_CHANNELS = 16
LATENT_PATCH = 2  # latent pixels a side of a noise token
TEMPORAL_COMPRESSION = 4  # frames of a latent frame, after the first
SPATIAL_COMPRESSION = 8  # pixels a side of a latent pixel
SIDE_STEP = SPATIAL_COMPRESSION * LATENT_PATCH
FRAME_STEP = 2 * TEMPORAL_COMPRESSION  # the autoencoder decodes two latent frames at a time
MIN_SIDE = 32


def is_legal_side(side: int) -> bool:
    """Whether an edge of so many pixels falls into whole noise tokens."""
    return side >= SIDE_STEP and side % SIDE_STEP == 0


def is_legal_length(num_frames: int) -> bool:
    """Whether the autoencoder makes clips of so many frames: 1, 9, 17, 25 and so on."""
    return num_frames >= 1 and (num_frames - 1) % FRAME_STEP == 0


def nearest_side(side: int, max_side: int) -> int:
    """The legal edge nearest to ``side`` pixels, from :data:`MIN_SIDE` to ``max_side``."""
    rounded = (side + SIDE_STEP // 2) // SIDE_STEP * SIDE_STEP
    return min(max(MIN_SIDE, rounded), max_side // SIDE_STEP * SIDE_STEP)


def nearest_length(num_frames: int, max_frames: int) -> int:
    """The legal number of frames nearest to ``num_frames``, at most ``max_frames``."""
    steps = max(0, (num_frames - 1 + FRAME_STEP // 2) // FRAME_STEP)
    return min(steps * FRAME_STEP + 1, max_frames)


def latent_frames(num_frames: int) -> int:
    """Latent frames of a clip: one for the first frame, one for every four after it."""
    return (num_frames - 1) // TEMPORAL_COMPRESSION + 1


def latent_shape(num_frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
    """[1, F, 16, h, w] of a clip of ``height`` x ``width`` pixels."""
    return (
        1,
        latent_frames(num_frames),
        LATENT_CHANNELS,
        height // SPATIAL_COMPRESSION,
        width // SPATIAL_COMPRESSION,
    )


def noise_tokens(num_frames: int, height: int, width: int) -> int:
    """Tokens N of a clip of ``height`` x ``width`` pixels, the timestep's not counted."""
    return latent_frames(num_frames) * (height // SIDE_STEP) * (width // SIDE_STEP)
