"""Where the project is: the scripts of this folder import it first, so that they run from any folder."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import utils  # noqa: E402, F401  before NumPy: it says what to do where that is not installed
