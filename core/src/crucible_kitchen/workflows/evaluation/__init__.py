"""How good weights are.

| module | idea |
| --- | --- |
| `measures` | log likelihoods of examples; completions that are exactly right |
| `answers` | the same for the weights that are being trained |
| `tasks` | what the workflow `evaluate` scores: rows, problems, answers |
| `statistics` | intervals, and pass@k |
"""
