"""What benchmarks/strategies.py is made of."""
