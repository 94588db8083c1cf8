"""What this package refuses."""

from __future__ import annotations

from core.errors import HaploOmniError


class QuantizationError(HaploOmniError, ValueError):
    """Something that cannot be done here."""
