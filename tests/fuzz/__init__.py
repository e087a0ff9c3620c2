"""Fuzzing of everything that reads what others wrote: ``make fuzz``.

``targets`` says what is fuzzed and what must hold, ``__main__`` runs atheris on it (libFuzzer,
coverage-guided), ``test_targets`` replays seeds and plain mutations in the ordinary suite.
"""
