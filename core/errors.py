"""Everything this package raises on purpose. Each message is one sentence for a person: what is wrong, what to do."""

from __future__ import annotations


class HaploOmniError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(HaploOmniError, ValueError):
    """A configuration that describes no possible model."""


class CheckpointError(HaploOmniError, OSError):
    """A checkpoint folder with a missing, damaged or foreign file."""


class MediaError(HaploOmniError, ValueError):
    """An image or clip that cannot be read, or is outside the limits."""


class PromptError(HaploOmniError, ValueError):
    """A conversation or prompt the model cannot take."""


class RequestError(HaploOmniError, ValueError):
    """A generation setting outside what the model or its autoencoder can do."""


class DataError(HaploOmniError, ValueError):
    """Training data with a bad row, or none at all."""


class ShortMemoryError(HaploOmniError, MemoryError):
    """Memory ran out, and nothing could be made smaller."""


class NumericalError(HaploOmniError, ArithmeticError):
    """The model produced NaN or infinity."""
