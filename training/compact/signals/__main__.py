"""`python -m training.compact.signals`: see the package."""

import sys

from .command import main

sys.exit(main())
