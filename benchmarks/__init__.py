"""benchmarks: token savings, evidence kept, answers kept, latency and dollars, beside named peers.

`python -m benchmarks` runs all of it and writes a report. Nothing here ships in the wheel, and nothing gates a test.
"""
