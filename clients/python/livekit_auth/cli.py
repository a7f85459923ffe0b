"""The program `livekit-auth`. Its commands need the extra `cli`."""

import os
import sys


def main() -> None:
    """Runs the program and exits: 0 success, 1 refused, 2 usage error, 3 no response, 4 output not written."""
    # gRPC's core would log failed handshakes next to the program's own error.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from livekit_auth._cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in {"rich", "typer"}:
            raise
        from livekit_auth.extras import how_to_install

        sys.stderr.write(f"the command line needs packages that aren't installed: {how_to_install('cli')}\n")
        sys.exit(2)
    # Python keeps bytes that aren't UTF-8 as lone surrogates, which no protobuf message can carry.
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
