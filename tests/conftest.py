"""For every test: gRPC's TLS pin, which must come before gRPC is imported, as in `livekit-auth-server serve`."""

from livekit_auth_server.transport.tls import pin_tls13

pin_tls13()
