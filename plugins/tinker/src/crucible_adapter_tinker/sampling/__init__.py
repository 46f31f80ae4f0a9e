"""From prompts to completions and scores."""
