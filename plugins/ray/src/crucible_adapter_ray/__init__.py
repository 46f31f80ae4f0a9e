"""Train and sample on a cluster, or on several processes of this machine, with Ray.

`training_client` and `completer` are the two adapters. Importing them is cheap: Ray is imported
when the first session starts, and PyTorch only in the processes that Ray starts.

| module | what is in it |
| --- | --- |
| `training` | a session: its ranks, one in each actor, and what the driver does for all of them |
| `sampling` | from prompts to answers, on as many actors as are asked for |
| `live` | weights on their way from a session to those who sample from them |
| `cluster` | the Ray that all of these share: one that runs, or one of their own |
"""
