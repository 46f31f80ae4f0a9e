"""A session: what may be submitted, the arithmetic behind it, and the memory it takes."""
