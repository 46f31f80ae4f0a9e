"""The version of the running core, from its package metadata."""

import importlib_metadata

__version__ = importlib_metadata.version("crucible-kitchen")
