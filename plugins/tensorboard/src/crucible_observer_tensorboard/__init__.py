"""Runs of Crucible Kitchen in TensorBoard."""
