"""The pure core: identity, policy, grants, mint, webhook check, keys, audit records.

Takes bytes and values, returns values or raises a `Refusal`. No grpc, no files, no network and no clock of its own:
every function that needs the time is given it, in whole seconds since the epoch.
"""
