"""Real engines and real clients around the gateway: ``make test-engines``."""
