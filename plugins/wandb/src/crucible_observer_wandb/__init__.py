"""Runs of Crucible Kitchen on Weights & Biases."""
