"""`python -m chronoedit` (and `torchrun -m chronoedit`): the same as the command `chronoedit`."""

from __future__ import annotations

import sys

from chronoedit.apps.main import main

if __name__ == "__main__":
    sys.exit(main())
