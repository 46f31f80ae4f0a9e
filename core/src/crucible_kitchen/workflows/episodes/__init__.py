"""Episodes: problems that are played with the completer, token ids kept as they were sampled.

| module | idea |
| --- | --- |
| `play` | episodes of many problems at once, turn by turn |
| `transcript` | a conversation as one sequence of tokens, never turned back into text |
| `first_problems` | the first problems of a run, to try and to show |
| `probe` | what trainer and sampler are compared on |
| `ahead` | playing the next batches while a step is trained on |
| `spoken` | problems played by a completer alone, in texts |
| `metrics` | rewards, groups, lengths: what a batch of episodes measured |
"""
