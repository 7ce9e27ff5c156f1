"""`python -m training.curation`: see the package."""

import sys

from .command import main

sys.exit(main())
