"""`python -m awpbench`."""

import sys

from awpbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
