"""Assess one photo in five lines.

python examples/assess.py photo.jpg
"""

import sys

from zoomiqa import assess

assessment = assess(sys.argv[1])
print(f"rating {assessment.rating:.2f} of 5, spread {assessment.spread:.2f}, looked closely at {assessment.box}")
print("wanted:", assessment.positive)
print("flaws:", assessment.negative)
