"""What users of any version do, in one program. The tests run it with the client of one version or another."""

import asyncio
import sys
from collections.abc import Awaitable
from pathlib import Path

import livekit_auth
from livekit_auth import AuthClient, AuthError, Denied, VerificationFailed


async def refusal(call: Awaitable[object]) -> AuthError:
    """The error of a call that must fail."""
    try:
        response = await call
    except AuthError as error:
        return error
    raise AssertionError(f"permitted: {response}")


async def main(directory: Path, address: str) -> None:
    def client(name: str) -> AuthClient:
        return AuthClient(
            address, ca=directory / "server-ca.pem", cert=directory / f"{name}.pem", key=directory / f"{name}.key"
        )

    async with client("web") as web, client("hooks") as hooks:
        assert (await web.get_caller()).listed
        issued = await web.issue_token(room="consult-1", identity="user-1", role="guest", attributes={"a": "b"})
        assert (await hooks.verify_token(issued.token)).identity == "user-1"
        denied = await refusal(web.issue_token(room="board", identity="user-1", role="guest"))
        assert isinstance(denied, Denied)
        assert denied.reason == "ROOM_NOT_PERMITTED"
        assert denied.decision_id
        body, authorization = (directory / "body").read_bytes(), (directory / "authorization").read_text()
        await hooks.ack_webhook(await hooks.verify_webhook(body, authorization))
        assert (await hooks.verify_webhook(body, authorization)).is_duplicate
        failed = await refusal(hooks.verify_webhook(body + b" ", authorization))
        assert isinstance(failed, VerificationFailed)
        assert failed.reason == "BODY_ALTERED"
    print("done with", Path(livekit_auth.__file__).parent)  # noqa: T201


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
