"""``python -m core.training``: make the bundled checkpoint from nothing, or go on where a run was cut off."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path

PARTS = ("autoencoder", "model", "export", "all")


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m core.training",
        description="Train the small HaploOmni on procedural scenes. Every part resumes from its newest state in --out.",
    )
    parser.add_argument("part", choices=PARTS, nargs="?", default="all", help="which part to run (default: all, in order)")
    parser.add_argument("--out", type=Path, default=Path("runs/tiny"), help="folder of the run (default: runs/tiny)")
    parser.add_argument("--autoencoder-steps", type=int, default=3400, help="default: 3400")
    parser.add_argument("--steps", type=int, default=2500, help="joint training steps (default: 2500)")
    parser.add_argument("--clips", type=int, default=5000, help="clips encoded once for generation (default: 5000)")
    parser.add_argument("--stills", type=int, default=3600, help="pictures encoded once for generation (default: 3600)")
    parser.add_argument("--rows", type=float, default=1.0, help="factor on the rows of every batch; raise it on a GPU")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="of the joint training (default: auto)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: PyTorch's choice; one is often as fast)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the chosen parts."""
    options = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    import torch

    from core.devices import resolve_device
    from core.errors import HaploOmniError
    from core.training.autoencoder import train_autoencoder
    from core.training.export import export_checkpoint
    from core.training.tokenizer import build_tokenizer
    from core.training.trainer import Recipe, Trainer

    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        device = resolve_device(options.device)
    except HaploOmniError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    # a finished autoencoder is only loaded: its run has no steps left
    vae = train_autoencoder(options.out / "autoencoder", options.autoencoder_steps, options.seed)
    if options.part == "autoencoder":
        return 0
    rows = {f.name: max(1, round(f.default * options.rows)) for f in fields(Recipe) if f.name.endswith("_rows")}
    recipe = Recipe(steps=options.steps, lr=options.lr, seed=options.seed, clips=options.clips, stills=options.stills, **rows)
    tokenizer = build_tokenizer()
    trainer = Trainer(options.out / "model", tokenizer, vae, recipe, device)
    model = trainer.train() if options.part != "export" else trainer.averaged()
    if options.part != "model":
        export_checkpoint(options.out / "checkpoint", model.cpu(), tokenizer, vae)
        logging.info("written: %s", options.out / "checkpoint")
    return 0


if __name__ == "__main__":
    sys.exit(main())
