"""`python -m worldsim` is the command `worldsim`."""

from __future__ import annotations

import sys

from worldsim.cli import main

sys.exit(main())
