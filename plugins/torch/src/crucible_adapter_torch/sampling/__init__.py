"""From prompts to answers: a cache with a slot for each, and the choice of tokens."""
