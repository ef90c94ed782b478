"""`python tests/benchmarks`, from any folder."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # so that this folder is the package `benchmarks`

from benchmarks.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
