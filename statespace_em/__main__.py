"""``python -m statespace_em`` is ``statespace-em``, see `statespace_em.cli`."""

import sys

from statespace_em.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
