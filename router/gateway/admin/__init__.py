"""The admin surface: workers, reload, debugging; beside the API, or on a port of its own.

Start with ``access.py`` (who may), then ``workers_api.py`` and ``debug_api.py``. ``addresses.py``
says where a worker may be, ``identify.py`` asks an engine what it is, ``door.py`` opens the port.
"""
