"""Turn an assessment into a positive and a negative prompt for any text-guided restorer.

python examples/split_prompts.py photo.jpg
"""

import sys

from restore_bridge import compose, split_guidance
from zoomiqa import assess

prompts = compose(split_guidance(assess(sys.argv[1])), "clip", regions="folded")
print("positive:", prompts.positive)
print("negative:", prompts.negative)
