"""The same engines in closed form: one event per change of the batch, not per iteration.

Start with ``batch.py`` (the mathematics of a batch that does not change) and ``clockwork.py``
(when it does change), then one scheduler a file. ``../exact`` is what they must agree with.
"""
