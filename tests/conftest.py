"""For every test: gRPC's TLS pin, which must come before gRPC is imported, and hypothesis's profiles."""

from hypothesis import HealthCheck, settings

from livekit_auth_server.transport.tls import pin_tls13
from support.examples import ALL, EVERY_DAY

pin_tls13()

# A slow machine is no reason to fail: what is generated stays the same, how long it takes isn't judged.
settings.register_profile("thorough", max_examples=ALL, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("every day", settings.get_profile("thorough"), max_examples=EVERY_DAY)
settings.load_profile("every day")  # `pytest --hypothesis-profile thorough` loads the other one after this
