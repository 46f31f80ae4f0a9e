"""Train and sample on Tinker, or on a server that speaks its API.

`training_client` and `completer` are the two adapters. Importing them is cheap: the SDK and
Transformers are imported when a server is first asked.
"""
