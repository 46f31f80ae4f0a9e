"""What messages and files are made of: spelling, counts, durations, numbers, and foreign text."""
