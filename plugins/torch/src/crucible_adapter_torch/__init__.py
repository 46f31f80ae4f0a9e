"""Train and sample language models on this machine with PyTorch.

`training_client` and `completer` are the two adapters. Importing them is cheap: PyTorch and
Transformers are imported when the first model is loaded.

| folder | what is in it |
| --- | --- |
| `training` | a session: what may be submitted, the arithmetic behind it, the memory it takes |
| `sampling` | from prompts to answers: a cache with a slot for each, and the choice of tokens |
| `distributed` | a session that several processes share, for packages that start them |
| `parallel` | what these processes do together: add up gradients, collect parts of weights |
| `published` | the weights of a session that a sampler may read while it trains |
| `adaptation` | low-rank updates: added to a model, applied beside it, merged into it |
| `passes` | one pass: sequences in pieces, and the log probabilities of their targets |
| `checkpoints` | what is written: checkpoints, exports, and what a killed process leaves |
| `models` | language models: loaded or made here, and what is known about each |
"""
