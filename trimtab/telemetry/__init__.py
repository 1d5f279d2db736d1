"""Telemetry: what operators see of a server that runs: request ids, log lines, metrics, traces.

Nothing is imported here: `trimtab.telemetry.request_ids` is for everybody and must cost nothing.
"""
