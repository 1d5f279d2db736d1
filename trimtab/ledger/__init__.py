"""The ledger: what every request cost, what it would have cost, and why. Negative savings are savings too.

entries     the tables, and `Entry`, a line of them
recording   what a request that is over leaves in the ledger
writer      how it gets there: beside the answers, in groups, and by way of a file while the database is away
queries     lines and totals, for whoever asks
exports     providers' usage exports, read
reconcile   those held against the ledger
"""
