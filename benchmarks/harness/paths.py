"""Where things are."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE.parent
ROOT = BENCHMARKS.parent
SQL = HERE / "sql"
TALLYBOOK = str(Path(sys.executable).with_name("tallybook"))
