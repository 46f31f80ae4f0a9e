"""Metrics of Crucible Kitchen in JSON Lines files."""
