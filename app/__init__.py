"""The page: chat about pictures and clips, text to video, on one loaded model."""

import core  # noqa: F401  (sets how OpenMP's threads wait, before PyTorch is imported)
