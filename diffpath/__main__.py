"""``python -m diffpath``: the same as the command ``diffpath``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
