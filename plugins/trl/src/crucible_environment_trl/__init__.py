"""Environments of TRL in Crucible Kitchen."""
