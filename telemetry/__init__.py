"""Reads the engines, learns each backend's real speed, feeds policy and planner.

Start with ``engine_metrics.py`` (two engines, three generations of names), ``scraper.py`` and
``feedback.py`` (what live traffic teaches).
"""
