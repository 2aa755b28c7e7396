"""Frameworks in Python on the task: python frameworks.py NAME ADDRESS KEY MODEL...; as libraries.py, in which
the task and the loop are."""

import asyncio
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from libraries import FUNCTIONS, TASK, TOOLS, TURNS, main, read_note, write_note

ASKED = "Say in an object what the note is called, and how many lines it has."


async def agno(address: str, key: str, model: str) -> AsyncIterator[str]:
    from agno.agent import Agent
    from agno.models.openai.like import OpenAILike

    chat = OpenAILike(id=model, base_url=f"{address}/v1", api_key=key, max_retries=0)
    agent = Agent(model=chat, tools=[*TOOLS.values()], telemetry=False)
    async for event in agent.arun(TASK, stream=True):
        if event.event == "RunContent" and isinstance(event.content, str):
            yield event.content
        elif event.event == "RunError":
            raise RuntimeError(event.content)


async def autogen(address: str, key: str, model: str) -> AsyncIterator[str]:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_agentchat.messages import ModelClientStreamingChunkEvent
    from autogen_core.models import ModelFamily
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    can = {"vision": False, "function_calling": True, "json_output": True, "structured_output": True}
    info: Any = {**can, "family": ModelFamily.UNKNOWN}
    client = OpenAIChatCompletionClient(
        model=model, base_url=f"{address}/v1", api_key=key, max_retries=0, model_info=info
    )
    agent = AssistantAgent(
        "notes", client, tools=[write_note, read_note], model_client_stream=True, max_tool_iterations=TURNS
    )
    async for event in agent.run_stream(task=TASK):
        if isinstance(event, ModelClientStreamingChunkEvent):
            yield event.content
    await client.close()


async def haystack(address: str, key: str, model: str) -> AsyncIterator[str]:
    from haystack.components.agents import Agent
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.tools import Tool
    from haystack.utils import Secret

    chat = OpenAIChatGenerator(
        model=model, api_base_url=f"{address}/v1", api_key=Secret.from_token(key), max_retries=0
    )
    shown = [one["function"] for one in FUNCTIONS]
    tools = [Tool(one["name"], one["description"], one["parameters"], TOOLS[one["name"]]) for one in shown]
    agent = Agent(chat_generator=chat, tools=tools)

    def run(piece: Callable[[str], None]) -> None:
        agent.run([ChatMessage.from_user(TASK)], streaming_callback=lambda chunk: piece(chunk.content))

    async for text in _called(run):
        yield text


async def strands(address: str, key: str, model: str) -> AsyncIterator[str]:
    from strands import Agent, tool
    from strands.models.openai import OpenAIModel

    chat = OpenAIModel(
        client_args={"base_url": f"{address}/v1", "api_key": key, "max_retries": 0}, model_id=model
    )
    agent = Agent(model=chat, tools=[tool(write_note), tool(read_note)], callback_handler=None)
    async for event in agent.stream_async(TASK):
        if isinstance(event.get("data"), str):
            yield event["data"]


async def google_adk(address: str, key: str, model: str) -> AsyncIterator[str]:
    from google.adk.agents import LlmAgent
    from google.adk.agents.run_config import RunConfig, StreamingMode
    from google.adk.models import Gemini
    from google.adk.runners import InMemoryRunner
    from google.genai import types

    os.environ |= {"GOOGLE_GEMINI_BASE_URL": address, "GOOGLE_API_KEY": key}
    agent = LlmAgent(name="notes", model=Gemini(model=model), tools=[write_note, read_note])
    runner = InMemoryRunner(agent, app_name="notes")
    session = await runner.session_service.create_session(app_name="notes", user_id="u")
    message = types.UserContent(TASK)
    streamed = RunConfig(streaming_mode=StreamingMode.SSE)
    async for event in runner.run_async(
        user_id="u", session_id=session.id, new_message=message, run_config=streamed
    ):
        if event.error_code:
            raise RuntimeError(f"{event.error_code}: {event.error_message}")
        if event.partial and event.content:
            for part in event.content.parts or ():
                yield part.text or ""


async def crewai(address: str, key: str, model: str) -> AsyncIterator[str]:
    from crewai import LLM, Agent, Crew, Task
    from crewai.tools import tool

    chat = LLM(model=f"openai/{model}", base_url=f"{address}/v1", api_key=key, stream=True)
    tools = [tool("write_note")(write_note), tool("read_note")(read_note)]
    agent = Agent(
        role="Clerk", goal="Keep notes", backstory="Keeps notes", llm=chat, tools=tools, max_iter=TURNS
    )
    task = Task(description=TASK, expected_output="What the note says", agent=agent)
    crew = Crew(agents=[agent], tasks=[task], stream=True)

    def run(piece: Callable[[str], None]) -> None:
        running = crew.kickoff()
        for chunk in running:
            if chunk.chunk_type.value == "text":
                piece(chunk.content)

    async for text in _called(run):
        yield text


async def instructor(address: str, key: str, model: str) -> AsyncIterator[str]:
    """An object as the arguments of a forced tool, as it comes, and as it is in the end."""
    import instructor
    from openai import AsyncOpenAI
    from pydantic import BaseModel

    class Note(BaseModel):
        title: str
        lines: int

    client = instructor.from_openai(AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0))
    asked: Any = [{"role": "user", "content": ASKED}]
    last = None
    async for note in client.create_partial(model=model, messages=asked, response_model=Note, max_retries=0):
        last = note
    whole = await client.create(model=model, messages=asked, response_model=Note, max_retries=0)
    if last is None or last.model_dump() != whole.model_dump():
        raise RuntimeError(f"streamed {last}, whole {whole}")
    yield whole.model_dump_json()


async def _called(run: Callable[[Callable[[str], None]], None]) -> AsyncIterator[str]:
    """The pieces that a function gives to its callback, in a thread of its own."""
    pieces: queue.Queue[str | BaseException | None] = queue.Queue()

    def work() -> None:
        try:
            run(lambda text: pieces.put(text or ""))
            pieces.put(None)
        except Exception as failure:
            pieces.put(failure)

    threading.Thread(target=work, daemon=True).start()

    def come() -> Iterator[str]:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    for piece in await asyncio.to_thread(lambda: list(come())):
        yield piece


if __name__ == "__main__":
    asyncio.run(main(globals(), sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
