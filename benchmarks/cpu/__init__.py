"""The parts of benchmarks/cpu.py: shapes, the engines as processes, limits and tables; nothing of the package."""
