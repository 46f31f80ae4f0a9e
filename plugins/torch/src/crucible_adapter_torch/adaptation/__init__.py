"""Low-rank updates: added to a model, applied beside it, merged into it."""
