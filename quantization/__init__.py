"""Making 9B fit: what is legal, what it costs, and loading it so."""

import core  # noqa: F401  (sets how OpenMP's threads wait, before PyTorch is imported)
