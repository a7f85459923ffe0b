"""The OpenAPI description of the token endpoint: request, responses and refusals."""
# No postponed annotations: pydantic reads them.

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from livekit_auth._web.responses import RefusedError


class StandardToken(BaseModel):
    """The response that LiveKit's TokenSource.endpoint reads."""

    server_url: str = Field(description="The LiveKit server to connect to.")
    participant_token: str = Field(description="The access token. It is a secret: keep it out of logs and urls.")


class OlderToken(BaseModel):
    """The response to the older request."""

    token: str = Field(description="The access token. It is a secret: keep it out of logs and urls.")
    url: str = Field(description="The LiveKit server to connect to.")


class Refusal(BaseModel):
    """The reason for a refusal."""

    detail: str = Field(description="What is wrong, in human-readable form.")
    fields: dict[str, str] | None = Field(None, description="What is wrong with each field of the request.")
    decision_id: str | None = Field(None, description="The id of the decision in the server's audit trail.")


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": description}
    for status, description in {
        400: "The body isn't JSON, or a field is unknown, duplicate, of the wrong type or over LiveKit's limits",
        403: "A field has a value that this user may not request, or the policy denies the token",
        408: "The body didn't arrive in time",
        413: "The body is too large",
        415: "The body isn't application/json in UTF-8, or it is compressed",
        429: "Too many requests; Retry-After says when to retry",
        500: "The deployment is misconfigured",
        503: "Tokens can't be issued now; Retry-After says when to retry",
    }.items()
}


def at_fault() -> RefusedError:
    """The refusal for a fault of the deployment or the application. The log has the cause."""
    return RefusedError(500, "tokens can't be issued: an operator must investigate")


def request_body(names: Mapping[str, str]) -> dict[str, Any]:
    """The request body. `names` maps the names of its fields to those of AskedToken."""
    properties = {name: {"type": _type(attribute)} for name, attribute in names.items()}
    return {"content": {"application/json": {"schema": {"type": "object", "properties": properties}}}}


def _type(attribute: str) -> str:
    return "object" if attribute in {"participant_attributes", "room_config"} else "string"
