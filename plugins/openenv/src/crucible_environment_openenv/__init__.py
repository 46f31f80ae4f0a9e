"""Environments of OpenEnv servers in Crucible Kitchen."""
