"""The load test behind ``motley bench``. Start with ``plan.py``, ``drive.py``, ``figures.py``."""
