"""Replay of real traces over any fleet, driving the gateway's own decision code.

Start with ``replay.py`` (trace in, requests out), ``run.py`` (how one is put together) and
``replica/`` (how an engine schedules). ``traces/`` reads what arrives, ``report/`` shows what
came of it, ``sweep/`` crosses everything with everything.
"""
