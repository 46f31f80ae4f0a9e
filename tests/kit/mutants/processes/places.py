"""Where right adapters keep what other processes have to find."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Made by what writes to it: other processes import this, too.
FOLDER = Path(tempfile.gettempdir()) / f"mutants-{os.getpid()}"
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
