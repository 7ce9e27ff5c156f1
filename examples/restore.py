"""Restore one photo under the guidance of its assessment and keep the better picture.

python examples/restore.py photo.jpg restored.png
"""

import sys

from restore_bridge import restore
from zoomiqa import save_picture

result = restore(sys.argv[1])
save_picture(result.picture, sys.argv[2], overwrite=True)
print(f"kept the {result.kept} picture: {result.reason}")
