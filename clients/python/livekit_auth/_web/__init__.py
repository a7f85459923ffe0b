"""What the web integrations share: bounded bodies, strict JSON, refusals as HTTP responses.

Imports `_messages` and `v1`, and no web framework.
"""
