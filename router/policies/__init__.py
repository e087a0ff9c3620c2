"""Routing policies, one a file.

Start with ``least_request.py`` (the peers' default), then ``marginal_delay.py``. To add a policy:
write its file, add a line to ``registry.py``.
"""
