"""What other routers do, from their formulas and defaults, one file each.

They are here to be compared with: each is given every advantage that its design allows (weights
set to the true speeds, signals as fresh as its own polling) and no other. Start with
``nginx_least_conn.py``, the strongest simple rival.
"""
