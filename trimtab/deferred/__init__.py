"""The deferred lane: requests that may wait, bought where they are cheapest before their deadline."""
