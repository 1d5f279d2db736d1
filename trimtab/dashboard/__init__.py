"""The dashboard: what the ledger holds, as pages at `/`, for whoever runs this server.

Server-rendered HTML that makes sense without a script; charts are drawn over the tables that it holds. Reads the ledger
and writes nothing.
"""
