"""``python -m tidegate``: the command line, whatever the scripts directory. Nothing else."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
