"""A real engine with a small random model, started for a benchmark or a test."""
