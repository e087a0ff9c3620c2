"""Where backends come from: files, DNS, Kubernetes, REST.

Level-triggered: a source hands over its whole fleet, as often as it likes, and the roster works
out what joined, changed and left. Start with ``seam.py``, then ``roster.py``; each source is one
module.
"""
