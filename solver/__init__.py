"""The planner: which GPUs run which model, and which class of request goes where.

Start with ``workload.py`` (demand by class), ``constraints.py`` and ``objective.py`` (the ILP,
one rule a function, over the symbols of ``terms.py``) and ``prices.py`` (what a second on each
group is worth). ``plan.py`` is the whole way from demand to plan; ``planner.py`` rolls along with
live traffic; ``service.py`` and ``congestion.py`` say what a request costs and how it slows others.
"""
