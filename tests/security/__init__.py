"""What the threat model in the documentation promises, a test for each line."""
