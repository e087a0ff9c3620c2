"""What engines publish of their prefix caches, brought to the index of the policy.

``wire`` reads vLLM's and SGLang's events, ``follow`` works out what they say of prompts that this
gateway sent, ``subscribe`` hears them over ZMQ. Start with ``follow``.
"""
