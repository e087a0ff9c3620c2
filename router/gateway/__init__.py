"""The gateway: OpenAI-compatible HTTP in front of a mixed fleet.

Start with ``exchange.py`` (one client request, from its bytes to its end; ``trying`` and
``answering`` are its two sides), ``attempt.py`` (one try on one backend, the guard that keeps every
counter right) and ``app.py`` (the only builder).

The relay engine (``exchange``, ``attempt``, ``connection``, ``upstream``, ``engine`` on top of
``asked`` and ``outbound``) knows no web server: it is driven by callbacks and talks to a ``Client``
(``seams.py``). ``asgi.py`` is the front end for any ASGI server; FastAPI serves every path that is
not hot (``ops_api.py``).

Beside it: ``engine_reading`` (what engines say of themselves), ``instruments`` (what is learned),
``metering`` (energy and money), ``bookkeeping`` (traffic record, access log, traces).
"""
