"""The transport on grpc.aio: calls, connections and what they may hold."""
