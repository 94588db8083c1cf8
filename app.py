"""HaploOmni in the browser. For people: ``python app.py``; for Hugging Face Spaces: this same file."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Read the options and run the page; nothing heavy is imported before the options are right."""
    from app.settings import read_settings

    settings = read_settings(argv)
    from app.launch import run

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
