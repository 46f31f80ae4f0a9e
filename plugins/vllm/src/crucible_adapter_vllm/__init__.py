"""Sample with vLLM on the machine of the trainer, from its weights as it trains.

`completer` is the adapter. Importing it is cheap: vLLM is imported when the first prompt comes.
"""
