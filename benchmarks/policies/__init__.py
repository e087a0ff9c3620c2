"""The evidence: every policy on several workloads, fleets, loads and seeds.

``python -m benchmarks.policies.run`` writes the table in README and a page of plots.
"""
