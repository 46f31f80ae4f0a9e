"""A session whose ranks are actors: what runs in each, and what the driver does for all of them."""
