"""The live fleet page. Start with ``board.py`` (what is shown), ``feed.py``, ``api.py``."""
