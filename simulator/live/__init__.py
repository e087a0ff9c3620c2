"""A live engine and its simulated twin: measured, fitted, replayed side by side.

Start with ``probe.py`` (what is asked of the engine) and ``observe.py`` (what an answer says about
its iterations), then ``fit.py`` (seconds per kind of work). ``validation.py`` replays a trace
against the engine (``replay.py``) and its twin (``twin.py``) and compares them.
"""
