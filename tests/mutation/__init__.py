"""Mutation testing of the decision core: ``make mutate``.

``mutants`` makes small wrong changes, ``__main__`` runs the tests that ought to notice. A mutant
that no test notices has survived: a test is missing, or the change is none (``EXPLAINED``).
"""
