"""Data sets of Crucible Kitchen from local files and the Hugging Face Hub."""
