"""What benchmarks/kv.py is made of."""
