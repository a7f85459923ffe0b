"""Tokens for code that can't wait, and its result while there is none."""

import asyncio
import datetime as dt
import subprocess
import sys
import threading
from typing import Any

import jwt
import pytest
from livekit import api
from livekit.agents import APIConnectionError, inference
from livekit.agents.inference import _utils as _inference

from livekit_auth import ConfigError, Denied, TokenRequest, Unavailable
from livekit_auth._messages.errors import Failure
from livekit_auth._messages.results import IssuedToken
from livekit_auth._workers.required_grants import needs
from livekit_auth.agents import _cloud, _http, _livekit_internals, _process_tokens
from livekit_auth.agents._process_tokens import ProcessTokens, process_tokens
from livekit_auth.agents._settings import Settings

PATIENCE = 10  # seconds
AWAY = Unavailable(Failure("UNAVAILABLE", "away"))
REFUSED = Denied(Failure("PERMISSION_DENIED", "no"))


class Client:
    """Returns or raises each of `answers` in turn, then repeats the last one."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.threads = set()

    def issue(self, request):
        self.requests.append(request)
        self.threads.add(threading.current_thread())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def issued(text="token-1"):
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    fields = dict.fromkeys(IssuedToken.__dataclass_fields__, "")
    return IssuedToken(**{**fields, "token": text, "issue_time": now, "expire_time": now + dt.timedelta(minutes=10)})


def settings(**given):
    roles = {"role": "w", "api_role": None, "inference_role": "agent-inference", **given}
    return Settings(project="", address=None, ca=None, cert=None, key=None, **roles)


def tokens(client):
    made = ProcessTokens(settings())
    made._client = client
    return made


async def test_kept_token_is_available_without_blocking_an_event_loop():
    client = Client(issued())
    kept = tokens(client).inference
    await kept.ready(PATIENCE)
    assert kept.now().token == "token-1"
    assert client.requests == [TokenRequest(role="agent-inference", identity="agent")]
    assert threading.current_thread() not in client.threads


async def test_reading_a_kept_token_starts_it_and_never_waits():
    answer = threading.Event()

    class Slow(Client):
        def issue(self, request):
            answer.wait(PATIENCE)
            return super().issue(request)

    kept = tokens(Slow(issued())).inference
    with pytest.raises(APIConnectionError, match="no token yet"):
        _cloud.inference_token(kept)
    answer.set()
    await kept.ready(PATIENCE)
    assert _cloud.inference_token(kept) == "token-1"


@pytest.mark.parametrize(("error", "again"), [(AWAY, True), (REFUSED, False)])
async def test_inference_without_a_token_is_a_connection_error(error, again):
    kept = tokens(Client(error)).inference
    await kept.ready(PATIENCE)
    with pytest.raises(APIConnectionError, match="LiveKit Inference has no token") as failed:
        _cloud.inference_token(kept)
    assert failed.value.retryable is again


async def test_inference_with_unusable_settings_names_the_setting():
    kept = tokens(Client(ConfigError("no server address"))).inference
    await kept.ready(PATIENCE)
    with pytest.raises(ConfigError, match="no token: no server address"):
        _cloud.inference_token(kept)


async def test_kept_token_is_issued_once_the_server_is_available_again(monkeypatch):
    monkeypatch.setattr(_process_tokens, "MAX_PAUSE_SECONDS", 0.01)
    kept = tokens(Client(AWAY, AWAY, issued())).inference
    await kept.ready(PATIENCE)
    async with asyncio.timeout(PATIENCE):
        while isinstance(kept.now(), Unavailable):  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)
    assert kept.now().token == "token-1"


def test_no_token_is_requested_without_an_event_loop():
    client = Client(issued())
    assert _cloud.inference_token(tokens(client).inference) == _http.STAND_IN
    assert client.requests == []


async def test_the_tokens_of_a_process_are_shared():
    assert process_tokens(settings()) is process_tokens(settings())
    assert process_tokens(settings()) is not process_tokens(settings(inference_role="other"))


@pytest.fixture
def as_before():
    """Restores what a test replaced in livekit-agents."""
    yield
    _cloud.set_up(settings(inference_role=None))


@pytest.fixture
def no_keys(monkeypatch):
    for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "LIVEKIT_INFERENCE_API_KEY", "LIVEKIT_INFERENCE_API_SECRET"):
        monkeypatch.delenv(name, raising=False)


MODELS = [
    lambda: inference.LLM("openai/gpt-4.1-mini"),
    lambda: inference.STT("deepgram/nova-3"),
    lambda: inference.TTS("cartesia/sonic-3", voice="x"),
    inference.AdaptiveInterruptionDetector,
    lambda: inference.TurnDetector(version="v1"),
]


@pytest.mark.parametrize("model", MODELS)
def test_model_without_a_role_says_what_is_missing(model, as_before, no_keys):
    _cloud.set_up(settings(inference_role=None))
    with pytest.raises(ConfigError, match="pass AgentServer an inference_role"):
        model()


@pytest.mark.parametrize("model", MODELS)
def test_model_with_a_role_needs_no_key(model, as_before, no_keys):
    _cloud.set_up(settings())
    model()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(_inference, "resolve_credentials"), reason="1.7 has no realtime models")
def test_realtime_models_behave_like_other_models(as_before, no_keys):
    _cloud.set_up(settings(inference_role=None))
    with pytest.raises(ConfigError, match="pass AgentServer an inference_role"):
        inference.RealtimeModel("openai/gpt-realtime")
    _cloud.set_up(settings())
    inference.RealtimeModel("openai/gpt-realtime")


@pytest.mark.slow
def test_setting_up_imports_no_realtime_models(as_before):
    code = (
        "import sys; from livekit_auth.agents import AgentServer; AgentServer(inference_role='i');"
        "sys.exit('livekit.agents.inference.realtime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_model_with_the_users_own_key_signs_with_it(as_before, no_keys):
    _cloud.set_up(settings())
    model = inference.LLM("openai/gpt-4.1-mini", api_key="APImine", api_secret="s" * 32)
    assert jwt.decode(model._client.api_key, "s" * 32, algorithms=["HS256"])["iss"] == "APImine"


def test_setup_is_idempotent(as_before):
    for role in (None, "a", None, "a"):
        _cloud.set_up(settings(inference_role=role, observability_role=role))
    changed: Any = inference.LLM.__init__
    own = changed.replaced
    assert not hasattr(own, "replaced")
    assert _livekit_internals.REPLACED


def test_version_that_lacks_a_replaced_name_is_refused(monkeypatch):
    from livekit.agents import AgentServer, job  # noqa: PLC0415

    server = AgentServer()
    monkeypatch.delattr(job, "_observability_url")
    with pytest.raises(ConfigError, match=r"no livekit\.agents\.job\._observability_url: .* works with 1\.7 and 1\.8"):
        _livekit_internals.check(server)


SERVICES = (
    api.room_service.RoomService,
    api.agent_dispatch_service.AgentDispatchService,
    api.egress_service.EgressService,
    api.ingress_service.IngressService,
    api.sip_service.SipService,
)


@pytest.mark.parametrize("service", SERVICES)
def test_required_grants_of_each_livekit_service_are_known(service):
    name = {"EgressService": "Egress", "IngressService": "Ingress", "SipService": "SIP"}.get(
        service.__name__, service.__name__
    )
    assert needs(f"livekit.{name}/Anything")
