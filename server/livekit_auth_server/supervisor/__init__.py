"""Several workers under one small process: starts them, restarts what dies, replaces them one by one, drains them.

gRPC is never imported in here: its threads and a process that starts others don't go together.
"""
