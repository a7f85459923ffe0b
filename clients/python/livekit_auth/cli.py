"""The program `livekit-auth`. Its commands are in livekit_auth._cli, which needs the extra `cli`."""

import os
import sys


def main() -> None:
    """Runs the program and exits: 0 done, 1 refused, 2 misused, 3 no answer, 4 the output can't be written."""
    # gRPC's core would write its own account of a failed handshake beside the program's.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from livekit_auth._cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in {"rich", "typer"}:
            raise
        from livekit_auth.extras import how_to_install

        sys.stderr.write(f"livekit-auth's command line needs more than is installed: {how_to_install('cli')}\n")
        sys.exit(2)
    # Python keeps bytes that aren't UTF-8 as lone surrogates, which no message of the contract can carry.
    if not all(_is_utf8(argument) for argument in sys.argv):
        sys.stderr.write("livekit-auth: an argument isn't UTF-8\n")
        sys.exit(2)
    app()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


if __name__ == "__main__":
    main()
