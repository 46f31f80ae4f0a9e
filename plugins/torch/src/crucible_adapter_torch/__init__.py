"""Train and sample language models on this machine with PyTorch.

`training_client` and `completer` are the two adapters. Importing them is cheap: PyTorch and
Transformers are imported when the first model is loaded.
"""
