"""Which backends may be used; time is an argument. Start with ``breaker.py``."""
