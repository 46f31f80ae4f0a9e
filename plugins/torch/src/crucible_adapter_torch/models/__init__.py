"""Language models: loaded or made here, frozen in few bytes, and what is known about each."""
