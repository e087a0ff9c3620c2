"""The planner: which GPUs run which model, and which class of request goes where.

Start with ``workload.py`` (demand by class), ``problem.py`` (the ILP) and ``prices.py`` (what a
second on each group is worth).
"""
