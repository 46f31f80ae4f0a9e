"""Completions of Crucible Kitchen from any server that speaks OpenAI's protocol."""
