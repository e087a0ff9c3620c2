"""An HTTP server that looks like vLLM or SGLang, around one simulated replica in real time.

Start with ``driver.py`` (the replica on the wall clock), ``completions.py`` (one request from
body to last byte) and ``vllm.py`` beside ``sglang.py`` (what each engine says, byte for byte).
``fleet.py`` runs many engines in one loop, ``host.py`` puts them in a process of their own.
"""
