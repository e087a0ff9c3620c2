"""What would happen to *your* traffic if the fleet were another. Start with ``study.py``."""
