"""Many clips in one picture, to look at."""

from __future__ import annotations

import numpy as np

from core.opencv import cv2


def contact_sheet(clips: list[tuple[str, np.ndarray]]) -> np.ndarray:
    """Clips in two columns, each as five of its frames with the prompt above.

    Args:
        clips: prompts with frames uint8 RGB [T, H, W, 3], all of one size.

    Returns:
        uint8 BGR [height, width, 3].
    """
    cells = []
    for text, frames in clips:
        picks = [frames[i] for i in np.linspace(0, len(frames) - 1, 5).astype(int)]
        row = cv2.cvtColor(np.concatenate(picks, axis=1), cv2.COLOR_RGB2BGR)
        label = np.full((20, row.shape[1], 3), 255, np.uint8)
        cv2.putText(label, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
        cells.append(np.concatenate([label, row, np.full((4, row.shape[1], 3), 255, np.uint8)]))
    if len(cells) % 2:
        cells.append(np.full_like(cells[0], 255))
    rows = [np.concatenate(cells[i : i + 2], axis=1) for i in range(0, len(cells), 2)]
    return np.concatenate(rows)
