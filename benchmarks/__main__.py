"""`python -m benchmarks [SUITE ...] [--quick] [--data FILE] [--seed N] [--out DIR] [--readme FILE]`

`python -m benchmarks soak [--minutes N]` is a command of its own.
"""

import os

# Before torch loads: threads that wait sleep. Spinning ones took three times as long beside another busy process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import sys

from benchmarks.command import app
from benchmarks.soak import app as soak

if __name__ == "__main__":
    if sys.argv[1:2] == ["soak"]:
        soak(sys.argv[2:], prog_name="python -m benchmarks soak")
    app(prog_name="python -m benchmarks")
