"""python -m sciforge."""

import sys

from sciforge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
