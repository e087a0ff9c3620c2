"""Quality of each weight format, measured on questions with known answers.

Begin with ``items.py`` (what is asked), ``grade.py`` (what an answer is worth) and ``figures.py``
(whether a variant is within 5 % of the baseline, and how sure that is).
"""
