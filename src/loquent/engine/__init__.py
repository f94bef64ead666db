"""The engine: one loop that runs any mix of requests over a backend."""
