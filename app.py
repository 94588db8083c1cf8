"""HaploOmni in the browser. For people: ``python app.py``; for Hugging Face Spaces: this same file.

An old Python must get as far as the sentence below, so this file keeps to what Python 3.6 can read.
"""

import os
import sys

OLDEST_PYTHON = (3, 11)


def main(argv: "list[str] | None" = None) -> int:
    """Read the options and run the page; nothing heavy is imported before the options are right."""
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(str(number) for number in sys.version_info[:3])
        sys.stderr.write(f"error: This is Python {found}; HaploOmni needs Python 3.11, 3.12 or 3.13.\n")
        return 2
    here = os.path.dirname(os.path.abspath(__file__))
    if here not in sys.path:  # PYTHONSAFEPATH leaves it out
        sys.path.insert(0, here)
    from app.startup.surroundings import ensure_streams

    ensure_streams()
    from app.settings import read_settings

    settings = read_settings(argv)
    from app.launch import run

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
