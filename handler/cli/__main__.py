"""`python -m handler.cli` is the same as `bms-autostop`."""

import sys

from handler.cli import main

sys.exit(main())
