"""Sharing: what several workers and hosts know together. Stores and a log over Redis, a log over the database, and a bus that
tells each worker what the others have learned."""
