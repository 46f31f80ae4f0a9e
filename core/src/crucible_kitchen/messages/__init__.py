"""What messages are made of: spelling, durations, and foreign text that is safe to print."""
