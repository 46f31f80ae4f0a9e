"""What messages and files are made of: spelling, durations, numbers, and foreign text."""
