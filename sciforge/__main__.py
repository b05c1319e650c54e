"""python -m sciforge."""

import sys

from sciforge.cli import main

if __name__ == "__main__":
    sys.exit(main())
