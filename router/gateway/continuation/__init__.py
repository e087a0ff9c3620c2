"""Mid-stream continuation: an answer that breaks off is gone on with by another backend.

Start with ``rules`` (which requests), then ``transcript`` (what the client has so far, and how two
streams become one), then ``attempt`` (who notices that a stream broke).
"""
