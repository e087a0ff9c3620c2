"""Trace files in, columns out.

Start with ``record.py`` (one line of a trace), ``read.py`` (detect, stream, load) and
``columns.py`` (what the replay runs on).
"""
