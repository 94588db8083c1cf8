"""Everything this program raises on purpose.

Each message is one sentence for a person: what is wrong, and what to do.

    HaploOmniError
    ├── ConfigError         a configuration that describes no possible model
    ├── CheckpointError     a checkpoint folder with a missing, damaged or foreign file
    ├── QuantizationError   weights that cannot be held or run as wanted
    ├── MediaError          a picture or clip that cannot be read or written
    ├── PromptError         a conversation or prompt that the model cannot take
    ├── RequestError        a setting outside what the model or its autoencoder can do
    ├── DataError           training data with a bad row, or none at all
    ├── ShortMemoryError    memory ran out, and nothing could be made smaller
    ├── NumericalError      the model produced NaN or infinity
    ├── BusyError           too many jobs are waiting
    ├── StoppedError        the engine runs no jobs any more
    └── TicketError         a job that is not known, not any more, or somebody else's

Where Python has an error of the same meaning, ours is of that kind too, and whoever waits for it gets it.
"""

from __future__ import annotations


class HaploOmniError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(HaploOmniError, ValueError):
    """A configuration that describes no possible model."""


class CheckpointError(HaploOmniError, OSError):
    """A checkpoint folder with a missing, damaged or foreign file."""


class QuantizationError(HaploOmniError, ValueError):
    """Weights that cannot be held or run as wanted, because of the mode, the machine or the checkpoint."""


class MediaError(HaploOmniError, ValueError):
    """An image or clip that cannot be read or written, or is outside the limits."""


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


class BusyError(HaploOmniError):
    """Too many jobs are waiting."""


class StoppedError(HaploOmniError):
    """The engine runs no jobs any more."""


class TicketError(HaploOmniError, LookupError):
    """A job that is not known, not any more, or somebody else's."""
