"""Which weights of the plan are worth having: plan, simulate, judge.

Start with ``trial.py`` (what one set of weights comes to), ``choose.py`` (the Pareto front and
the score) and ``study.py`` (the unattended search behind ``motley tune``).
"""
