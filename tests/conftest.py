"""For every test: gRPC's TLS pin, which must come before gRPC is imported, as in `livekit-auth-server serve`."""

from hypothesis import HealthCheck, settings

from livekit_auth_server.transport.tls import pin_tls13

pin_tls13()

# A slow machine is no reason to fail: what is generated stays the same, how long it takes isn't judged.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
