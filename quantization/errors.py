"""What this package refuses."""

from __future__ import annotations


class QuantizationError(ValueError):
    """Something that cannot be done here; the message is one sentence for a person: what is wrong, what to do."""
