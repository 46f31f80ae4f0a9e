"""Runs of Crucible Kitchen in Trackio."""
