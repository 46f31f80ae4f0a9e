"""The chat templates of many model families, and what is trained on with each of them."""
