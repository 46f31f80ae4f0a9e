"""Metrics of Crucible Kitchen in an SQL database."""
