"""What replicas share, off the request path.

Start with ``board.py`` (the seam: one exchange, one lease), then ``sharing.py`` (what is exchanged
and what it changes here). Boards: ``memory_board.py`` in one process, ``hub.py`` for the worker
processes of one machine, ``redis_board.py`` for replicas.
"""
