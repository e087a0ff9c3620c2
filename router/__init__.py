"""The gateway and the decision core.

Start with three files:

1. ``router/domain/protocols.py``: the seams (policy, observer, length predictor, planner).
2. ``router/dispatcher.py``: the synchronous heart that both the gateway and the simulator drive.
3. ``router/policies/marginal_delay.py``: one policy, one page.

Imports run downward only: cli > gateway > dispatcher > policies, fleet_state, queue, health,
config > perf > domain. Nothing is imported here.
"""
