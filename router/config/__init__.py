"""One YAML file for gateway, simulator and planner.

Start with ``schema.py`` (every setting), then ``load.py`` (from file to frozen objects) and
``build.py`` (from settings to a dispatcher).
"""
