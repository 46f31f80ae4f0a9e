"""Models and data sets of Crucible Kitchen from the Hugging Face Hub."""
