"""Metrics of Crucible Kitchen on an MLflow tracking server."""
