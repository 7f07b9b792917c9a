# SPDX-License-Identifier: Apache-2.0
"""Makes the package importable from a checkout."""

from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
