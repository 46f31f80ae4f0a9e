"""What the processes that share a session do together: see `alone`, which is what one does."""
