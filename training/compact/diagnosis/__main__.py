"""`python -m training.compact.diagnosis`."""

import sys

from .command import main

sys.exit(main())
