"""`python -m benchmarks [SUITE ...] [--quick] [--data FILE] [--seed N] [--out DIR] [--readme FILE]`"""

import os

# Before torch loads: threads that wait sleep. Spinning ones took three times as long beside another busy process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.command import app

if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
