"""Crucible Kitchen adapters that wrap others. Each module is one wrapper, for several ports."""
