"""One pass through a model: sequences in pieces, and the log probabilities of their targets."""
