"""What is going on in the fleet: exact in-flight counts merged with stale scrapes.

Start with ``backend.py`` (one backend), then ``fleet.py`` (who may take a request).
"""
