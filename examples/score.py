"""Score a picture before and after: full-reference against the first, and the assessor's rating of both.

python examples/score.py before.jpg after.jpg
"""

import sys

from restore_bridge import score

for line in score(sys.argv[1], sys.argv[2]):
    print(line)
