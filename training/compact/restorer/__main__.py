"""`python -m training.compact.restorer`."""

import sys

from .command import main

sys.exit(main())
