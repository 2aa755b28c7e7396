"""Frameworks in Python on the task: python frameworks.py NAME ADDRESS KEY MODEL...; as libraries.py, in which
the task and the loop are."""

import asyncio
import json
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import redirect_stdout
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


async def semantic_kernel(address: str, key: str, model: str) -> AsyncIterator[str]:
    from openai import AsyncOpenAI
    from semantic_kernel.agents import ChatCompletionAgent
    from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
    from semantic_kernel.functions import kernel_function

    class Plugin:
        @kernel_function(description="Keep a note.")
        def write_note(self, text: str) -> str:
            return write_note(text)

        @kernel_function(description="Give it.")
        def read_note(self) -> str:
            return read_note()

    client = AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
    chat = OpenAIChatCompletion(ai_model_id=model, async_client=client)
    agent = ChatCompletionAgent(service=chat, name="clerk", plugins=[Plugin()])
    async for piece in agent.invoke_stream(messages=TASK):
        yield str(piece.content)


async def agent_framework(address: str, key: str, model: str) -> AsyncIterator[str]:
    from agent_framework.openai import OpenAIChatClient

    async for piece in _agent_framework(OpenAIChatClient(model, base_url=f"{address}/v1", api_key=key)):
        yield piece


async def agent_framework_chat(address: str, key: str, model: str) -> AsyncIterator[str]:
    from agent_framework.openai import OpenAIChatCompletionClient

    client = OpenAIChatCompletionClient(model, base_url=f"{address}/v1", api_key=key)
    async for piece in _agent_framework(client):
        yield piece


async def _agent_framework(client: Any) -> AsyncIterator[str]:
    from agent_framework import Agent

    agent = Agent(client, "Keep notes.", tools=[write_note, read_note])
    async for update in agent.run(TASK, stream=True):
        yield update.text


async def ag2(address: str, key: str, model: str) -> AsyncIterator[str]:
    from ag2.config import OpenAIConfig

    chat = OpenAIConfig(model, api_key=key, base_url=f"{address}/v1", streaming=True, max_retries=0)
    async for piece in _ag2(chat):
        yield piece


async def ag2_responses(address: str, key: str, model: str) -> AsyncIterator[str]:
    from ag2.config import OpenAIResponsesConfig

    chat = OpenAIResponsesConfig(model, api_key=key, base_url=f"{address}/v1", streaming=True, max_retries=0)
    async for piece in _ag2(chat):
        yield piece


async def _ag2(chat: Any) -> AsyncIterator[str]:
    from ag2 import Agent, MemoryStream, tool
    from ag2.events import ModelMessageChunk

    pieces: list[str] = []
    stream = MemoryStream()
    stream.where(ModelMessageChunk).subscribe(lambda chunk: pieces.append(chunk.content))
    agent = Agent("clerk", prompt="Keep notes.", config=chat, tools=[tool(write_note), tool(read_note)])
    await agent.ask(TASK, stream=stream)
    for piece in pieces:
        yield piece


async def smolagents(address: str, key: str, model: str) -> AsyncIterator[str]:
    """Its answer is the argument of a tool, and what its tools gave is text ("Observation:")."""
    from smolagents import OpenAIServerModel, ToolCallingAgent, tool
    from smolagents.models import ChatMessageStreamDelta

    chat = OpenAIServerModel(model, api_base=f"{address}/v1", api_key=key, client_kwargs={"max_retries": 0})

    @tool
    def write(text: str) -> str:
        """Keep a note.

        Args:
            text: What the note says.
        """
        return write_note(text)

    @tool
    def read() -> str:
        """Give the note that was kept."""
        return read_note()

    write.name, read.name = "write_note", "read_note"
    agent = ToolCallingAgent([write, read], chat, stream_outputs=True, max_steps=TURNS)

    def run(piece: Callable[[str], None]) -> None:
        with redirect_stdout(sys.stderr):  # it shows what comes, whatever its verbosity
            for event in agent.run(TASK, stream=True):
                if isinstance(event, ChatMessageStreamDelta):
                    piece(event.content or "")
                    for call in event.tool_calls or ():
                        piece(str((call.function and call.function.arguments) or ""))

    async for text in _called(run):
        yield text


async def dspy(address: str, key: str, model: str) -> AsyncIterator[str]:
    """An object: the fields of a signature, as JSONAdapter asks for them of a model that it does not know."""
    import dspy

    class Note(dspy.Signature):
        """Describe the note."""

        question: str = dspy.InputField()
        title: str = dspy.OutputField()
        lines: int = dspy.OutputField()

    chat = dspy.LM(f"openai/{model}", api_base=f"{address}/v1", api_key=key, cache=False, num_retries=0)
    with dspy.context(lm=chat, adapter=dspy.JSONAdapter()):
        note = await dspy.Predict(Note).acall(question=ASKED)
    yield json.dumps({"title": note.title, "lines": note.lines})


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
