"""Requests kept in the router, to be bound late. Start with ``waiting_room.py``."""
