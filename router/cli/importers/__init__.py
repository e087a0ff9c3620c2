"""Other routers' configurations, read into Motley's. Start with ``found.py``, then one source.

Every source is a function from what was read to ``Found``: the backends, the settings and, of
everything that was read and has no place here, a line that says why.
"""
