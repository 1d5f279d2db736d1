"""`python -m benchmarks [SUITE ...] [--quick] [--data FILE] [--seed N] [--out DIR] [--readme FILE]`"""

from benchmarks.command import app

if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
