"""Sampling on many actors: what is asked is cut into a part for each, what they say is joined."""
