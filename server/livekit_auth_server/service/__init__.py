"""The RPC handlers, free of any transport: bytes and a `CallContext` in, bytes out, or a `Refusal`."""
