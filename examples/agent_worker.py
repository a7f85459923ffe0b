"""An agent worker without LIVEKIT_API_SECRET: it needs only LIVEKIT_AUTH_ADDRESS, _CA, _CERT and _KEY."""

from livekit.agents import JobContext, cli

from livekit_auth.agents import AgentServer

server = AgentServer(role="agent-worker", api_role="agent-api")


@server.rtc_session(agent_name="greeter")
async def entrypoint(ctx: JobContext) -> None:
    """Joins the room of the job."""
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
