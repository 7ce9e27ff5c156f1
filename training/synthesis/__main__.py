"""`python -m training.synthesis`: see the package."""

import sys

from .command import main

sys.exit(main())
