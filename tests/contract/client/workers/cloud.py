"""A worker whose job is recorded and calls LiveKit Inference. Writes the result to a file."""

import json
import os
from pathlib import Path

from livekit.agents import Agent, AgentSession, JobContext, cli, inference, llm

from livekit_auth.agents import AgentServer

RESULT = Path(os.environ["TEST_RESULT"])
server = AgentServer(
    inference_role=os.environ.get("TEST_INFERENCE_ROLE"),
    observability_role=os.environ.get("TEST_OBSERVABILITY_ROLE"),
    host="127.0.0.1",
    port=0,
    initialize_process_timeout=60,
    num_idle_processes=0,
    load_fnc=lambda: 0.0,
)


@server.rtc_session(agent_name="cloud")
async def entrypoint(ctx: JobContext) -> None:
    found = {"session": await outcome(record()), "inference": await outcome(ask())}
    RESULT.write_text(json.dumps(found))  # noqa: ASYNC240 - it is small
    ctx.shutdown()


async def record() -> str:
    await AgentSession(vad=None).start(Agent(instructions="be brief"))
    return "started"


async def ask() -> str:
    chat = llm.ChatContext.empty()
    chat.add_message(role="user", content="hello")
    async with inference.LLM("openai/gpt-4.1-mini").chat(chat_ctx=chat) as answer:
        return "".join([chunk.delta.content or "" async for chunk in answer if chunk.delta])


async def outcome(attempt) -> str:
    try:
        return await attempt
    except Exception as error:  # noqa: BLE001 - the test checks it
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    cli.run_app(server)
