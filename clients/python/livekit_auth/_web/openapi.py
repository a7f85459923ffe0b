"""The token endpoint as OpenAPI shows it: what it takes, the token that it serves, and its refusals."""
# No postponed annotations here: pydantic reads them.

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from livekit_auth._web.responses import RefusedError


class StandardToken(BaseModel):
    """What LiveKit's TokenSource.endpoint reads."""

    server_url: str = Field(description="The LiveKit server to connect to.")
    participant_token: str = Field(description="The access token. It is a secret: keep it out of logs and urls.")


class OlderToken(BaseModel):
    """The answer to the older request."""

    token: str = Field(description="The access token. It is a secret: keep it out of logs and urls.")
    url: str = Field(description="The LiveKit server to connect to.")


class Refusal(BaseModel):
    """Why there is no token."""

    detail: str = Field(description="What is wrong, for people.")
    fields: dict[str, str] | None = Field(None, description="What is wrong with each field of the request.")
    decision_id: str | None = Field(None, description="The decision's id in the service's audit trail.")


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": description}
    for status, description in {
        400: "The body isn't JSON, or a field is unknown, given twice, of another type or over LiveKit's limits",
        403: "A field isn't this user's to set, or the service's policy says no",
        408: "The body didn't arrive in time",
        413: "The body is too large",
        415: "The body isn't application/json in UTF-8, or it is compressed",
        429: "Too many tokens at once; Retry-After says when to try again",
        500: "The deployment is at fault",
        503: "Tokens can't be issued now; Retry-After says when to try again",
    }.items()
}


def at_fault() -> RefusedError:
    """The refusal where the deployment or the application is at fault; the log says how."""
    return RefusedError(500, "tokens can't be issued: an operator must look")


def request_body(names: Mapping[str, str]) -> dict[str, Any]:
    """The request's body; `names` are its fields by their names in AskedToken."""
    properties = {name: {"type": _type(attribute)} for name, attribute in names.items()}
    return {"content": {"application/json": {"schema": {"type": "object", "properties": properties}}}}


def _type(attribute: str) -> str:
    return "object" if attribute in {"participant_attributes", "room_config"} else "string"
