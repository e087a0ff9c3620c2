"""The oracle: every iteration is stepped, O(batch) each, as the engines' sources read.

Start with ``engine.py`` (one iteration after the other), then one scheduler a file.
"""
