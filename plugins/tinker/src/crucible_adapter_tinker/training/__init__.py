"""Sessions: what may be submitted, what was, and the checkpoints of it."""
