"""The comparisons as a picture and as a table."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

# the curve of every seed of every arm, in the order of the arms
Results = dict[str, dict[str, list[dict[str, float]]]]

FIGURES = {
    "next_token/picture": "next-token loss, pictures",
    "answer_accuracy/picture": "answers right, pictures",
    "answer_accuracy/clip": "answers right, clips",
    "diffusion/video": "denoising loss, clips",
}


def table(results: Results) -> str:
    """Markdown: the last held-out figures of every arm, mean over seeds and the seeds' range."""
    lines = ["| arm | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    for arm, curves in results.items():
        cells = []
        for figure in FIGURES:
            # the last value of every seed
            values = [points[-1][figure] for points in curves.values() if points and figure in points[-1]]
            cells.append(f"{mean(values):.3f} ({min(values):.3f}-{max(values):.3f})" if values else "-")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_curves(results: Results, file: Path) -> None:
    """Held-out values against compute, a panel a figure, a line an arm: the seeds' mean and their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, panels = pyplot.subplots(2, 2, figsize=(12, 8), constrained_layout=True)
    for panel, (figure, title) in zip(panels.flat, FIGURES.items(), strict=True):
        for number, (arm, seeds) in enumerate(results.items()):
            curves = [points for points in seeds.values() if points]
            if not curves:
                continue
            length = min(map(len, curves))
            xs = [curves[0][n]["compute"] for n in range(length)]
            rows = [[points[n].get(figure, float("nan")) for points in curves] for n in range(length)]
            panel.plot(
                xs, [mean(row) for row in rows], label=arm, color=f"C{number}", marker="o", markersize=3
            )
            panel.fill_between(
                xs, [min(row) for row in rows], [max(row) for row in rows], color=f"C{number}", alpha=0.15
            )
        panel.set_title(title)
        panel.set_xlabel("compute of the stages, 1e12 floating-point operations")
        if "loss" in title:
            panel.set_yscale("log")
        panel.grid(alpha=0.3)
    panels.flat[1].legend(loc="upper left")
    drawing.savefig(file, dpi=110)
    pyplot.close(drawing)
