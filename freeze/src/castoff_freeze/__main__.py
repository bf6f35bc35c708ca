"""``python -m castoff_freeze``, and ``python PATH/castoff_freeze`` where it is not on the import path."""

from __future__ import annotations

import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from castoff_freeze.cli import main

if __name__ == "__main__":
    sys.exit(main())
