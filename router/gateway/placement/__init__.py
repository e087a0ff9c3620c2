"""The plan's placement put into effect, a replica at a time.

Start with ``adapter.py`` (what an adapter must do), ``carry_out.py`` (the order that never leaves
a model without a ready replica) and ``control.py`` (when, and what is kept of it).
"""
