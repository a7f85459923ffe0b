"""The command line. `app` imports nothing heavy, and gRPC only after TLS is pinned."""
