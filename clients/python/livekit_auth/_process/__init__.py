"""What the client needs of the process it runs in: a clock, background work, and surviving a fork.

Imports nothing else of this package.
"""
