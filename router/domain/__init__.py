"""Nouns and seams of the decision core; standard library only.

Start with ``request.py`` (what arrives), ``fleet.py`` (where it may go) and ``protocols.py``
(who decides).
"""
