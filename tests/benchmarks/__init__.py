"""What the abstraction costs: each number against what a user would write or pick instead.

`python -m benchmarks --list`, in the folder above, names the benchmarks.
"""
