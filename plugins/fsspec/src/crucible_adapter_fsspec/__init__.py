"""Blobs of Crucible Kitchen on any file system that fsspec reaches."""
