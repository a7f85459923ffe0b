"""The grpc.aio edge: TLS, limits, error mapping, health, reflection. grpc's types stay in here."""
