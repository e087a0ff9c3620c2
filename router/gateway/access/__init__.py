"""Who may come in, and how much they may use.

Start with ``gate.py`` (the one seam that every front end asks), then ``ring.py`` (which key is
whose), ``meter.py`` (limits and budgets of one holder) and ``ledger.py`` (the amounts, which
replicas may share). ``keys_file.py`` keeps keys on disk, as digests; ``oidc.py`` reads tokens.
"""
