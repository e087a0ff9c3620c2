"""OpenAI's Batch API: files in, answers out, at the fleet's leisure.

Start with ``runner.py``; ``store.py`` is what survives a restart, ``api.py`` what clients see.
"""
