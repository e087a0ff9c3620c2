"""Policies x loads x fleets x traces x seeds, in parallel, resumable.

Start with ``spec.py`` (the file), ``cell.py`` (one run), ``sweep.py`` (all of them) and
``frontier.py`` (the highest load at which the SLO holds).
"""
