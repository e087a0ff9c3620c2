"""What a person looks at: ``table.py`` (terminal), ``rows.py`` (per request), ``page.py``."""
