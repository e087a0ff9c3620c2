"""Replay of real traces over any fleet, driving the gateway's own decision code.

Start with ``replica.py`` (how an engine schedules), ``replay.py`` (trace in, requests out) and
``report.py`` (what came of it).
"""
