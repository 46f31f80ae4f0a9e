"""Sampling from the weights that are being trained.

| module | idea |
| --- | --- |
| `sampler` | weights published for the completer, and checked at each synchronisation |
| `canary` | whether trainer and sampler have the same weights, from what both say of a probe |
| `rollouts` | completions as training data |
"""
