"""The contract's messages as Python values: requests, results, verified webhooks and errors.

Imports `v1` and `extras` only.
"""
