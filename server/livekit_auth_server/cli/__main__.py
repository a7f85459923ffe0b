"""`python -m livekit_auth_server.cli`."""

from livekit_auth_server.cli.app import main

main()
