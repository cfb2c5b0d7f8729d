"""``python -m mlfm``: the same program as ``mlfm``."""

import sys

from mlfm.cli import main

sys.exit(main())
