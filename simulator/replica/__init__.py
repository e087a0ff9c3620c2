"""One simulated engine: how it schedules, what fits its KV cache, how long it takes.

Start with ``job.py`` (what goes in and comes out), ``config.py`` (how one engine is set up) and
``build.py`` (``make_replica``). ``exact/`` steps through every iteration and is the oracle;
``fast/`` jumps over the iterations in which nothing changes and must agree with it.
"""
