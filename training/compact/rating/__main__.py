"""`python -m training.compact.rating`: see the package."""

import sys

from .command import main

sys.exit(main())
