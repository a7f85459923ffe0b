"""A lying or broken server: whatever it responds, a client raises only AuthError, and in time."""

import asyncio

import pytest
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

import livekit_auth
import livekit_auth.sync
from livekit_auth import AuthError, TokenRequest, TokenSource
from livekit_auth.v1 import auth_service_pb2 as pb
from livekit_auth.v1.permissions_pb2 import AllowEntry
from support.fake_auth_server import issued
from support.pki import Authority
from support.raw_http2_server import Answer, raw_server

pytestmark = pytest.mark.slow

FAR = 2**62
STATUS = b"grpc-status"
DETAILS = b"grpc-status-details-bin"


@pytest.fixture(scope="module")
def authority():
    return Authority.create()


@pytest.fixture
def files(authority, tmp_path):
    cert, key = authority.issue(uris=["spiffe://example.org/web"]).write(tmp_path, "client")
    (tmp_path / "ca.pem").write_bytes(authority.leaf_pem)
    return {"ca": tmp_path / "ca.pem", "cert": cert, "key": key}


CALLS = {
    "issue": lambda client: client.issue_token(role="guest"),
    "batch": lambda client: client.issue_tokens([TokenRequest(role="a"), TokenRequest(role="b")]),
    "webhook": lambda client: client.verify_webhook(b"{}", "a.b.c"),
    "verify": lambda client: client.verify_token("a.b.c"),
    "caller": lambda client: client.get_caller(),
    "permissions": lambda client: client.list_permissions(),
    "decision": lambda client: client.get_decision("dec-1"),
}


async def outcome(answer, call, authority, files, tmp_path):
    """What each of the two clients raises or returns."""
    outcomes: list[Any] = []
    async with raw_server(answer, authority, tmp_path) as address:
        async with livekit_auth.AuthClient(address, **files, timeout=2) as client:
            outcomes += await asyncio.gather(CALLS[call](client), return_exceptions=True)
        with livekit_auth.sync.AuthClient(address, **files, timeout=2) as client:
            outcomes += await asyncio.gather(asyncio.to_thread(CALLS[call], client), return_exceptions=True)
    return outcomes


def with_times(message, seconds=0, nanos=0):
    """Sets all times and durations in the message out of range."""
    for name in ("issue_time", "expire_time", "certificate_expire_time"):
        if name in message.DESCRIPTOR.fields_by_name:
            getattr(message, name).seconds, getattr(message, name).nanos = seconds, nanos
    return message


def permissions(seconds):
    entry = AllowEntry(name="web")
    entry.max_ttl.seconds = seconds
    return pb.ListPermissionsResponse(entries=[entry])


def decision(seconds, ttl):
    response = pb.GetDecisionResponse()
    response.decision.decide_time.seconds, response.decision.ttl.seconds = seconds, ttl
    return response


def webhook(seconds):
    response = pb.VerifyWebhookResponse()
    response.event.create_time.seconds = seconds
    return response


def with_token(token):
    response = issued()
    response.token = token
    return response


BAD_MESSAGES = [
    ("issue", b"\xff\xff\xff"),
    ("issue", b"\x0a\x02\xff\xfe"),  # the token isn't UTF-8
    ("issue", with_times(issued(), FAR)),
    ("issue", with_times(issued(), -FAR)),
    ("issue", with_times(issued(), 1, -5)),
    ("issue", with_times(issued(), 1, 2**31 - 1)),
    ("issue", with_token("")),
    ("issue", with_token("a.b.c\nSet-Cookie: x")),
    ("issue", with_token("a.b.\x1b[31m")),
    ("issue", with_token("a.b.\u202ec")),
    ("batch", pb.BatchIssueTokensResponse()),
    ("batch", pb.BatchIssueTokensResponse(results=[pb.IssueTokenResult(response=issued())])),
    ("batch", pb.BatchIssueTokensResponse(results=[pb.IssueTokenResult(response=issued())] * 3)),
    ("verify", with_times(pb.VerifyTokenResponse(), FAR)),
    ("webhook", webhook(FAR)),
    ("caller", with_times(pb.GetCallerResponse(), -FAR)),
    ("permissions", permissions(FAR)),
    ("permissions", permissions(-FAR)),
    ("decision", decision(FAR, 0)),
    ("decision", decision(0, FAR)),
]


@pytest.mark.parametrize(("call", "message"), BAD_MESSAGES)
async def test_response_that_breaks_the_contract_is_an_autherror(call, message, authority, files, tmp_path):
    body = message if isinstance(message, bytes) else message.SerializeToString()
    for error in await outcome(Answer([body]), call, authority, files, tmp_path):
        assert isinstance(error, AuthError), repr(error)
        assert error.code == "INTERNAL"
        assert str(error).isprintable()


async def test_batch_entry_that_breaks_the_contract_fails_alone(authority, files, tmp_path):
    entries = [pb.IssueTokenResult(response=with_token("\n")), pb.IssueTokenResult(response=issued())]
    body = pb.BatchIssueTokensResponse(results=entries).SerializeToString()
    for results in await outcome(Answer([body]), "batch", authority, files, tmp_path):
        assert isinstance(results[0], AuthError)
        assert results[1].decision_id == "dec-1"


def details(code, *messages, text="no"):
    status = Status(code=code, message=text)
    for message in messages:
        packed = Any()
        packed.Pack(message)
        status.details.append(packed)
    return status.SerializeToString()


def retry(seconds, nanos=0):
    info = RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    return info


def wrongly_typed():
    status = Status(code=7, message="no")
    for url in ("type.googleapis.com/google.rpc.ErrorInfo", "google.rpc.RetryInfo", "", "a/b/c", "\u202e"):
        status.details.add(type_url=url, value=b"\xff\xff\xff")
    return status.SerializeToString()


BAD_TRAILERS = {
    "a code from the future": [(STATUS, b"99")],
    "a code beyond 32 bits": [(STATUS, b"99999999999999")],
    "a code below zero": [(STATUS, b"-1")],
    "a code that is no number": [(STATUS, b"ok")],
    "no code": [],
    "a code twice": [(STATUS, b"7"), (STATUS, b"0")],
    "a message that isn't UTF-8": [(STATUS, b"7"), (b"grpc-message", b"%FF%FE\x80\xff")],
    "a message of control characters": [(STATUS, b"7"), (b"grpc-message", b"%1B[31m%0Aerror: all is well%07")],
    "details that aren't base64": [(STATUS, b"7"), (DETAILS, b"*** \xff")],
    "details that aren't a status": [(STATUS, b"7"), (DETAILS, b"\xff\xff\xff")],
    "details of wrong types": [(STATUS, b"7"), (DETAILS, wrongly_typed())],
    "details under another type": [(STATUS, b"7"), (b"grpc-status-details-bin", b""), (b"grpc-status-details", b"x")],
    "a wait below zero": [(STATUS, b"8"), (DETAILS, details(8, retry(-5)))],
    "a wait of centuries": [(STATUS, b"8"), (DETAILS, details(8, retry(FAR)))],
    "a wait that overflows": [(STATUS, b"14"), (DETAILS, details(14, retry(-FAR, -(2**31))))],
    "a wait of a year while unavailable": [(STATUS, b"14"), (DETAILS, details(14, retry(31_000_000)))],
    "much metadata": [(STATUS, b"7"), *((b"x-%d" % i, b"y" * 1000) for i in range(12))],
    "huge metadata": [(STATUS, b"7"), (b"x-huge", b"y" * 60_000)],
    "a reason of control characters": [
        (STATUS, b"7"),
        (DETAILS, details(7, ErrorInfo(domain="livekit-auth", reason="A\nB\x1b", metadata={"decision_id": "\x1b\n"}))),
    ],
    "violations of control characters": [
        (STATUS, b"3"),
        (DETAILS, details(3, BadRequest(field_violations=[{"field": "\x1b[2J", "description": "\r\n\u2028"}]))),
    ],
}


def base64_of(trailers):
    """Encodes -bin values in base64, as gRPC does (PROTOCOL-HTTP2.md). Malformed values are sent unchanged."""
    import base64  # noqa: PLC0415

    return [
        (name, base64.b64encode(value) if name == DETAILS and not value.startswith(b"***") else value)
        for name, value in trailers
    ]


@pytest.mark.parametrize("trailers", BAD_TRAILERS.values(), ids=BAD_TRAILERS)
async def test_any_failure_is_an_autherror(trailers, authority, files, tmp_path):
    async with asyncio.timeout(20):
        errors = await outcome(Answer([], base64_of(trailers)), "issue", authority, files, tmp_path)
    for error in errors:
        assert isinstance(error, AuthError), repr(error)
        assert str(error).isprintable()
        assert error.retry_after is None or error.retry_after.days <= 366


@pytest.mark.parametrize(
    "answer",
    [
        Answer(headers=[(b":status", b"200"), (b"content-type", b"text/html")], trailers=None),
        Answer(headers=[(b":status", b"502")], trailers=None),
        Answer(headers=[(b":status", b"xyz")], trailers=None),
        Answer([], trailers=((STATUS, b"0"),)),
        Answer([b"", b""]),
        Answer([b"x" * 16_000], trailers=None),
    ],
    ids=["html", "a proxy's 502", "no status", "OK without a message", "two messages", "no trailers"],
)
async def test_response_that_is_not_grpc_is_an_autherror(answer, authority, files, tmp_path):
    async with asyncio.timeout(20):
        errors = await outcome(answer, "issue", authority, files, tmp_path)
    for error in errors:
        assert isinstance(error, AuthError), repr(error)


async def test_token_source_survives_a_lying_server(authority, files, tmp_path):
    answer = Answer([with_times(issued(), FAR).SerializeToString()])
    async with (
        raw_server(answer, authority, tmp_path) as address,
        livekit_auth.AuthClient(address, **files, timeout=2) as client,
    ):
        source = TokenSource(client, TokenRequest(role="guest"))
        with pytest.raises(AuthError):
            await source.token()
        answer.messages = [issued().SerializeToString()]
        assert (await source.token()).decision_id == "dec-1"
