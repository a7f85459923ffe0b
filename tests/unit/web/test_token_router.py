"""The token endpoint: its requests, its responses, and what a browser learns from a refusal."""

import logging
from datetime import timedelta
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from livekit_auth import TokenRequest
from livekit_auth.fastapi import Access, Asked, token_router
from support.fake_auth_server import TOKEN
from support.web import JSON, URL, FakeClient, calling, error

STANDARD, OLDER = "/livekit/token-source", "/livekit/token"


def signed_in(session: Annotated[str, Header()] = "") -> str:
    if not session:
        raise HTTPException(401, "sign in first")
    return session


async def authorize(user: Annotated[str, Depends(signed_in)], asked: Asked) -> Access:
    """Users may enter consultations under any name, and nothing else."""
    room = asked.room_name or "consult-1"
    if not room.startswith("consult-"):
        raise HTTPException(403, "this isn't your room")
    return Access(
        room=room,
        identity=f"user-{user}",
        user_id=user,
        role="guest",
        name=asked.participant_name or user,
        attributes={**(asked.participant_attributes or {}), "plan": "free"} if user == "ada" else {},
        ttl=timedelta(minutes=5),
    )


@pytest.fixture
def service():
    return FakeClient()


@pytest.fixture
async def http(service):
    app = FastAPI()
    app.include_router(token_router(service, authorize=authorize))
    async with calling(app) as http:
        http.headers["session"] = "ada"
        yield http


# --- responses ---


async def test_front_end_gets_the_token_and_the_server_url(http, service):
    answer = await http.post(STANDARD, json={"room_name": "consult-7", "participant_name": "Ada"})
    assert (answer.status_code, answer.json()) == (201, {"server_url": URL, "participant_token": TOKEN})
    assert service.asked == [
        TokenRequest(
            room="consult-7",
            identity="user-ada",
            role="guest",
            name="Ada",
            attributes={"plan": "free"},
            ttl=timedelta(minutes=5),
        )
    ]


@pytest.mark.parametrize("body", [{}, {"room_name": None}, {"room_name": ""}, {"participant_attributes": {}}])
async def test_all_fields_are_optional(http, service, body):
    assert (await http.post(STANDARD, json=body)).status_code == 201
    assert (service.asked[0].room, service.asked[0].name) == ("consult-1", "ada")


async def test_permitted_fields_are_in_the_token(http, service):
    asked = {"participant_identity": "user-ada", "participant_attributes": {"colour": "red"}}
    assert (await http.post(STANDARD, json=asked)).status_code == 201
    assert service.asked[0].attributes == {"colour": "red", "plan": "free"}


async def test_older_request_gets_the_older_response(http, service):
    answer = await http.post(OLDER, json={"user_id": "ada", "room": "consult-7"})
    assert (answer.status_code, answer.json()) == (200, {"token": TOKEN, "url": URL})
    assert (service.asked[0].room, service.asked[0].identity) == ("consult-7", "user-ada")


async def test_older_request_may_be_in_the_url(http, service):
    answer = await http.post(f"{OLDER}?user_id=ada&room=consult-7")
    assert (answer.status_code, service.asked[0].room) == (200, "consult-7")


async def test_older_request_may_name_the_identity(http):
    assert (await http.post(OLDER, json={"user_id": "user-ada"})).status_code == 200


async def test_older_endpoint_can_be_omitted(service):
    app = FastAPI()
    app.include_router(token_router(service, authorize=authorize, older_path=None, path="/token"))
    async with calling(app) as http:
        assert (await http.post(OLDER, json={}, headers={"session": "ada"})).status_code == 404
        assert (await http.post("/token", json={}, headers={"session": "ada"})).status_code == 201


async def test_only_post_is_served(http):
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        assert (await http.request(method, STANDARD)).status_code == 405


async def test_agents_are_dispatched_if_the_application_permits(service):
    def with_agents(asked: Asked) -> Access:
        return Access(room="r", identity="i", role="guest", room_config=asked.room_config)

    app = FastAPI()
    app.include_router(token_router(service, authorize=with_agents))
    agents = [{"agent_name": "scribe", "metadata": "m", "deployment": "d"}]
    async with calling(app) as http:
        assert (await http.post(STANDARD, json={"room_config": {"agents": agents}})).status_code == 201
    (agent,) = service.asked[0].room_config.agents
    assert (agent.agent_name, agent.metadata, agent.deployment) == ("scribe", "m", "d")


async def test_openapi_describes_the_endpoint(http):
    described = (await http.get("/openapi.json")).json()["paths"]
    schema = described[STANDARD]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {
        "room_name",
        "participant_name",
        "participant_identity",
        "participant_metadata",
        "participant_attributes",
        "room_config",
    }


async def test_openapi_describes_the_token_and_each_refusal(http):
    document = (await http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]

    def answers(path):
        """The names of the fields of each response body, by status."""
        found = document["paths"][path]["post"]["responses"]
        refs = {status: answer["content"]["application/json"]["schema"]["$ref"] for status, answer in found.items()}
        return {status: {*schemas[ref.rpartition("/")[2]]["properties"]} for status, ref in refs.items()}

    refusal = {"detail", "fields", "decision_id"}
    refusals = dict.fromkeys(("400", "403", "408", "413", "415", "429", "500", "503"), refusal)
    framework = {"422": {"detail"}}  # for the parameters of `authorize`, as FastAPI describes it
    assert answers(STANDARD) == {"201": {"server_url", "participant_token"}, **refusals, **framework}
    assert answers(OLDER) == {"200": {"token", "url"}, **refusals, **framework}


# --- authorization ---


def test_authorize_is_required(service):
    with pytest.raises(TypeError, match="authorize"):
        token_router(service)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="authorize"):
        token_router(service, authorize=None)  # type: ignore[arg-type]


async def test_unauthenticated_user_is_refused_before_the_body_is_read(http, service):
    answer = await http.post(STANDARD, content=b"{broken", headers={**JSON, "session": ""})
    assert (answer.status_code, answer.json()) == (401, {"detail": "sign in first"})
    assert not service.asked


async def test_applications_refusal_reaches_the_browser(http, service):
    answer = await http.post(STANDARD, json={"room_name": "board-1"})
    assert (answer.status_code, answer.json()) == (403, {"detail": "this isn't your room"})
    assert answer.headers["cache-control"] == "no-store"
    assert not service.asked


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("participant_identity", "user-bob"),
        ("participant_metadata", "admin"),
        ("participant_attributes", {"plan": "paid"}),
        ("room_config", {"agents": [{"agent_name": "scribe"}]}),
    ],
)
async def test_field_that_the_user_may_not_set_is_refused_by_name(http, service, field, value):
    answer = await http.post(STANDARD, json={field: value})
    assert (answer.status_code, list(answer.json()["fields"])) == (403, [field])
    assert not service.asked


async def test_room_that_the_application_replaced_is_refused(service):
    app = FastAPI()
    app.include_router(token_router(service, authorize=lambda: Access(room="lobby", identity="i", role="guest")))
    async with calling(app) as http:
        answer = await http.post(STANDARD, json={"room_name": "board", "participant_name": "X"})
        assert (answer.status_code, set(answer.json()["fields"])) == (403, {"room_name", "participant_name"})
        assert (await http.post(STANDARD, json={"room_name": "lobby"})).status_code == 201


async def test_other_users_id_is_refused(http, service):
    for send in ({"json": {"user_id": "bob"}}, {"params": {"user_id": "bob"}}):
        answer = await http.post(OLDER, **send)
        assert (answer.status_code, list(answer.json()["fields"])) == (403, ["user_id"])
    assert not service.asked


@pytest.mark.parametrize("returned", [None, True, {"room": "r", "identity": "i", "role": "guest"}])
async def test_authorize_must_return_an_access(service, returned):
    app = FastAPI()
    app.include_router(token_router(service, authorize=lambda: returned))
    async with calling(app) as http:
        assert (await http.post(STANDARD, json={})).status_code == 500
    assert not service.asked


@pytest.mark.parametrize("missing", ["room", "identity", "role"])
def test_access_needs_a_room_an_identity_and_a_role(missing):
    values: dict[str, Any] = {"room": "r", "identity": "i", "role": "guest", missing: ""}
    with pytest.raises(ValueError, match=missing):
        Access(**values)


async def test_asked_works_only_in_authorize():
    app = FastAPI()

    async def other(asked: Asked) -> str:
        return "served"

    app.add_api_route("/other", other, methods=["POST"])
    async with calling(app) as http:
        assert (await http.post("/other", json={})).status_code == 500


async def test_authorize_may_read_the_body_itself(service):
    async def reading(request: Request, asked: Asked) -> Access:
        await request.json()
        return Access(room=asked.room_name or "r", identity="i", role="guest")

    async def reading_first(request: Request) -> bytes:
        return await request.body()

    app = FastAPI(dependencies=[Depends(reading_first)])
    app.include_router(token_router(service, authorize=reading))
    async with calling(app) as http:
        assert (await http.post(STANDARD, json={"room_name": "x"})).status_code == 201
    assert service.asked[0].room == "x"


# --- strictness ---


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"room": "x"}, ["room"]),
        ({"roomName": "x", "role": "host"}, ["roomName", "role"]),
        ({"user_id": "ada"}, ["user_id"]),
        ({"room_name": 1}, ["room_name"]),
        ({"room_name": ["a"], "participant_name": {}}, ["room_name", "participant_name"]),
        ({"participant_attributes": {"a": 1}}, ["participant_attributes"]),
        ({"participant_attributes": []}, ["participant_attributes"]),
        ({"room_config": "x"}, ["room_config"]),
        ({"room_config": {"agents": [{"agent_nam": "x"}]}}, ["room_config"]),
        ({"room_config": {"egress": {"room": {"file_outputs": [{"s3": {"secret": "x"}}]}}}}, ["room_config"]),
    ],
)
async def test_unknown_or_mistyped_fields_are_refused_by_name(http, service, body, named):
    answer = await http.post(STANDARD, json=body)
    assert (answer.status_code, list(answer.json()["fields"])) == (400, named)
    assert not service.asked


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json, text/plain",
        "application/jsonp",
        "application/json; boundary=x",
    ],
)
async def test_other_content_types_are_refused(http, service, kind):
    answer = await http.post(STANDARD, content=b"{}", headers={"content-type": kind} if kind else {})
    assert answer.status_code == 415
    assert not service.asked


@pytest.mark.parametrize("kind", ["application/json", 'Application/JSON; charset="UTF-8"', "application/json;"])
async def test_json_in_utf8_is_accepted(http, kind):
    assert (await http.post(STANDARD, content=b"{}", headers={"content-type": kind})).status_code == 201


async def test_two_content_types_are_refused(http):
    headers = [("content-type", "application/json"), ("content-type", "text/plain")]
    assert (await http.post(STANDARD, content=b"{}", headers=headers)).status_code == 415


async def test_compressed_body_is_refused(http):
    assert (await http.post(STANDARD, content=b"{}", headers={**JSON, "content-encoding": "gzip"})).status_code == 415


async def test_body_declared_too_large_is_not_read(http):
    read = []

    async def body():
        read.append("it")
        yield b""

    headers = {**JSON, "content-length": "65537"}
    assert (await http.post(STANDARD, content=body(), headers=headers)).status_code == 413
    assert read == []


async def test_too_large_body_is_not_read_to_its_end(http):
    sent = []

    async def endless():
        while True:
            sent.append(1)
            yield b" " * 10_000

    assert (await http.post(STANDARD, content=endless(), headers=JSON)).status_code == 413
    assert len(sent) < 10


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "9" * 30, "٣"])
async def test_invalid_content_length_is_refused(http, length):
    headers = [(b"content-type", b"application/json"), (b"content-length", length.encode())]
    assert (await http.post(STANDARD, content=b"{}", headers=headers)).status_code == 400


async def test_fields_in_both_url_and_body_are_refused(http):
    assert (await http.post(f"{OLDER}?room=consult-1", json={"room": "consult-2"})).status_code == 400


async def test_duplicate_field_in_the_url_is_refused(http, service):
    answer = await http.post(f"{OLDER}?room=consult-1&room=consult-2")
    assert (answer.status_code, list(answer.json()["fields"])) == (400, ["room"])
    assert not service.asked


# --- refusals by the server ---


async def refused(http, service, failure, body=None, path=STANDARD):
    service.failure = failure
    answer = await http.post(path, json=body or {})
    assert "internal" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer


async def test_denial_shows_only_its_id(http, service):
    denied = error("PERMISSION_DENIED", "ROLE_NOT_PERMITTED", metadata={"decision_id": "dec-9"})
    answer = await refused(http, service, denied)
    assert answer.status_code == 403
    assert answer.json() == {"detail": "you aren't allowed a token for this", "decision_id": "dec-9"}


async def test_field_over_a_limit_has_the_front_ends_name(http, service):
    broken = error("INVALID_ARGUMENT", "REQUEST_INVALID", violations={"room": "too long", "name": "odd"})
    answer = await refused(http, service, broken, {"room_name": "consult-1", "participant_name": "A"})
    assert answer.status_code == 400
    assert answer.json()["fields"] == {"room_name": "too long", "participant_name": "odd"}


async def test_older_request_has_its_own_field_names(http, service):
    broken = error("INVALID_ARGUMENT", "REQUEST_INVALID", violations={"room": "too long", "identity": "odd"})
    answer = await refused(http, service, broken, {"room": "consult-1", "user_id": "ada"}, OLDER)
    assert (answer.status_code, answer.json()["fields"]) == (400, {"room": "too long", "user_id": "odd"})


async def test_limit_broken_by_the_application_is_a_server_error(http, service):
    broken = error("INVALID_ARGUMENT", "REQUEST_INVALID", violations={"role": "no such form", "room": "too long"})
    answer = await refused(http, service, broken)
    assert (answer.status_code, "fields" in answer.json()) == (500, False)


async def test_rate_limit_has_retry_after(http, service):
    answer = await refused(http, service, error("RESOURCE_EXHAUSTED", "RATE_LIMITED", retry_after=7))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize("failure", [error("UNAVAILABLE"), error("DEADLINE_EXCEEDED"), error("CANCELLED")])
async def test_unavailable_service_has_retry_after(http, service, failure):
    answer = await refused(http, service, failure)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "failure",
    [
        error("UNAUTHENTICATED", "CERTIFICATE_INVALID"),
        error("FAILED_PRECONDITION", "SIGNING_KEY_MISSING"),
        error("INTERNAL"),
    ],
)
async def test_deployment_fault_is_not_explained_to_browsers(http, service, failure):
    assert (await refused(http, service, failure)).status_code == 500


async def test_reason_is_logged_and_the_token_is_not(http, service, caplog):
    caplog.set_level(logging.DEBUG)
    await http.post(STANDARD, json={})
    service.failure = error("PERMISSION_DENIED", "ROLE_NOT_PERMITTED", metadata={"decision_id": "dec-9"})
    await http.post(STANDARD, json={})
    assert "ROLE_NOT_PERMITTED, decision dec-9" in caplog.text
    assert TOKEN not in caplog.text


async def test_responses_are_no_store(http):
    for body in ({}, {"no": 1}):
        assert (await http.post(STANDARD, json=body)).headers["cache-control"] == "no-store"


def invalid(number: int) -> Access:
    raise AssertionError


def broken() -> Access:
    raise RuntimeError("a fault of the application")


def mistaken() -> str:
    return "no Access"


@pytest.mark.parametrize("path", [STANDARD, OLDER])
@pytest.mark.parametrize(("fault", "status"), [(invalid, 422), (broken, 500), (mistaken, 500)])
async def test_responses_of_the_framework_are_no_store(service, fault, status, path):
    app = FastAPI()
    app.include_router(token_router(service, authorize=fault))
    async with calling(app) as http:
        answer = await http.post(path, json={})
    assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")
    assert "fault of the application" not in answer.text


@pytest.mark.parametrize("path", [STANDARD, OLDER])
async def test_responses_to_other_methods_are_no_store(http, path):
    answer = await http.get(path)
    assert (answer.status_code, answer.headers["cache-control"]) == (405, "no-store")


async def test_exception_of_the_application_still_reaches_monitoring(service):
    app = FastAPI()
    app.include_router(token_router(service, authorize=broken))
    transport = httpx.ASGITransport(app)  # raises the application's exceptions, as middleware sees them
    async with httpx.AsyncClient(transport=transport, base_url="https://app.example.org") as http:
        with pytest.raises(RuntimeError, match="a fault of the application"):
            await http.post(STANDARD, json={})


async def test_response_of_an_exception_handler_is_no_store(service):
    app = FastAPI()
    app.include_router(token_router(service, authorize=broken))
    app.add_exception_handler(RuntimeError, lambda _request, _error: JSONResponse({"mine": True}, 418))
    async with calling(app) as http:
        answer = await http.post(STANDARD, json={})
    assert (answer.status_code, answer.json(), answer.headers["cache-control"]) == (418, {"mine": True}, "no-store")


async def test_refusals_of_the_framework_are_no_store(service):
    def refusing() -> Access:
        raise StarletteHTTPException(403, "not you")

    app = FastAPI()
    app.include_router(token_router(service, authorize=refusing))
    async with calling(app) as http:
        answer = await http.post(STANDARD, json={})
    assert (answer.status_code, answer.headers["cache-control"]) == (403, "no-store")


@pytest.mark.parametrize(
    "query",
    [
        "room=consult-1&room=consult-2",
        "room=consult-1&%72oom=consult-2",
        "room=board-1;room=consult-1",
        "room=consult-1&Room=board-1",
        "room=%ff",
        "room=board-1%00consult-1",
        "identity=user-bob",
        "user_id=ADA",
        "user_id=ada%20",
    ],
)
async def test_tricks_in_the_url_get_no_token(http, service, query):
    assert (await http.post(f"{OLDER}?{query}")).status_code in {400, 403}
    assert service.asked == []


@pytest.mark.parametrize(
    "body",
    [
        b'\xef\xbb\xbf{"room_name": "consult-1"}',
        b'{"room_name": "consult-1", "room\\u005fname": "board-1"}',
        b'{"room\\u005fname": "board-1"}',
        b'{"room_name": "consult-1"}{"room_name": "board-1"}',
        b'{"\\ud800": 1, "\\ud800": 2}',
        b"[" * 60_000,
        b'{"room_name": ' + b"9" * 5000 + b"}",
        '{"room_name": "consult-1"}'.encode("utf-16"),
    ],
)
async def test_tricks_in_the_body_get_no_token(http, service, body):
    assert (await http.post(STANDARD, content=body, headers=JSON)).status_code in {400, 403}
    assert service.asked == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "TRACE", "QUERY"])
async def test_method_override_is_ignored(http, service, method):
    headers = {"x-http-method-override": "POST", "x-method-override": "POST"}
    assert (await http.request(method, f"{OLDER}?_method=POST", headers=headers)).status_code == 405
    assert service.asked == []


async def test_cors_is_left_to_the_application(http):
    answer = await http.post(STANDARD, json={}, headers={"origin": "https://elsewhere.example.org"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
