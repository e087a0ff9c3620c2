"""The ``motley`` command: the only place that knows every part.

Start with ``main.py``; each command is a module of its own name, imported when it is used.
"""
