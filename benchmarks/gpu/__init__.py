"""A small real engine on a real GPU: what it says of Motley's model, and of Motley.

Start with ``llama.py`` (the model on a card), ``measure.py`` and ``accuracy.py`` (the engine model
against its iterations), then ``serve.py`` (the same engine behind HTTP) and ``mixed.py`` with
``mixed_report.py`` (several of them, unequal, behind the gateway).
"""
