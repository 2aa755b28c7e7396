"""Python libraries on a task with two tools: python libraries.py NAME ADDRESS KEY MODEL...; one line of JSON
per model.

Runs in an environment of its own (scripts/test_clients.sh), without the gateway. Each function uses its
library as its own documentation shows it, streams, and gives the pieces of text in the order in which they
came.
"""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

TASK = "Write a short note, read it again, and say what it says."
TURNS = 6
notes: list[str] = []


def write_note(text: str) -> str:
    """Keep a note.

    Args:
        text: what the note says
    """
    notes.append(text)
    return "kept"


def read_note() -> str:
    """Give the note that was kept."""
    return notes[-1]


TOOLS: dict[str, Callable[..., str]] = {"write_note": write_note, "read_note": read_note}
WRITE = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
READ = {"type": "object", "properties": {}}
FUNCTIONS = [
    {"type": "function", "function": {"name": "write_note", "description": "Keep a note.", "parameters": WRITE}},
    {"type": "function", "function": {"name": "read_note", "description": "Give it.", "parameters": READ}},
]  # fmt: skip


async def langchain_openai(address: str, key: str, model: str) -> AsyncIterator[str]:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model=model, base_url=f"{address}/v1", api_key=key, max_retries=0)
    async for piece in _langchain(chat):
        yield piece


async def langchain_responses(address: str, key: str, model: str) -> AsyncIterator[str]:
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(
        model=model, base_url=f"{address}/v1", api_key=key, max_retries=0, use_responses_api=True
    )
    async for piece in _langchain(chat):
        yield piece


async def langchain_anthropic(address: str, key: str, model: str) -> AsyncIterator[str]:
    from langchain_anthropic import ChatAnthropic

    async for piece in _langchain(ChatAnthropic(model=model, base_url=address, api_key=key, max_retries=0)):
        yield piece


async def _langchain(chat: Any) -> AsyncIterator[str]:
    from langchain_core.messages import HumanMessage
    from langchain_core.tools import tool

    tools = {name: tool(function) for name, function in TOOLS.items()}
    bound = chat.bind_tools(list(tools.values()))
    messages: list[Any] = [HumanMessage(TASK)]
    for _ in range(TURNS):
        whole = None
        async for chunk in bound.astream(messages):
            yield chunk.text if isinstance(chunk.text, str) else chunk.text()
            whole = chunk if whole is None else whole + chunk
        messages.append(whole)
        if not whole.tool_calls:
            return
        messages += [await tools[call["name"]].ainvoke(call) for call in whole.tool_calls]


async def llamaindex(address: str, key: str, model: str) -> AsyncIterator[str]:
    from llama_index.core.agent.workflow import AgentStream, FunctionAgent
    from llama_index.llms.openai_like import OpenAILike

    more = {"is_chat_model": True, "is_function_calling_model": True, "max_retries": 0}
    agent = FunctionAgent(
        tools=[*TOOLS.values()], llm=OpenAILike(model=model, api_base=f"{address}/v1", api_key=key, **more)
    )
    running = agent.run(TASK)
    async for event in running.stream_events():
        if isinstance(event, AgentStream):
            yield event.delta
    await running


async def pydantic_ai_openai(address: str, key: str, model: str) -> AsyncIterator[str]:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    chat = OpenAIChatModel(model, provider=OpenAIProvider(base_url=f"{address}/v1", api_key=key))
    async for piece in _pydantic_ai(chat):
        yield piece


async def pydantic_ai_anthropic(address: str, key: str, model: str) -> AsyncIterator[str]:
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(base_url=address, api_key=key, max_retries=0)
    async for piece in _pydantic_ai(
        AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client))
    ):
        yield piece


async def pydantic_ai_google(address: str, key: str, model: str) -> AsyncIterator[str]:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    async for piece in _pydantic_ai(
        GoogleModel(model, provider=GoogleProvider(base_url=address, api_key=key))
    ):
        yield piece


async def _pydantic_ai(model: Any) -> AsyncIterator[str]:
    from pydantic_ai import Agent
    from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta

    agent = Agent(model, tools=[*TOOLS.values()], retries=0)
    async with agent.iter(TASK) as run:  # its run_stream() takes the first text for the answer, and ends
        async for node in run:
            if not Agent.is_model_request_node(node):
                continue
            async with node.stream(run.ctx) as events:
                async for event in events:
                    match event:
                        case PartStartEvent(part=TextPart(content=text)):
                            yield text
                        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                            yield text


async def openai_agents(address: str, key: str, model: str) -> AsyncIterator[str]:
    """Its default, which is the Responses API."""
    async for piece in _openai_agents("OpenAIResponsesModel", address, key, model):
        yield piece


async def openai_agents_chat(address: str, key: str, model: str) -> AsyncIterator[str]:
    async for piece in _openai_agents("OpenAIChatCompletionsModel", address, key, model):
        yield piece


async def _openai_agents(kind: str, address: str, key: str, model: str) -> AsyncIterator[str]:
    import agents
    from openai import AsyncOpenAI

    agents.set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)
    tools = [agents.function_tool(function) for function in TOOLS.values()]
    agent = agents.Agent(name="Notes", tools=tools, model=getattr(agents, kind)(model, openai_client=client))
    running = agents.Runner.run_streamed(agent, TASK)
    async for event in running.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            yield event.data.delta


async def litellm_openai(address: str, key: str, model: str) -> AsyncIterator[str]:
    async for piece in _litellm(f"openai/{model}", f"{address}/v1", key):
        yield piece


async def litellm_anthropic(address: str, key: str, model: str) -> AsyncIterator[str]:
    async for piece in _litellm(f"anthropic/{model}", address, key):
        yield piece


async def _litellm(model: str, address: str, key: str) -> AsyncIterator[str]:
    import litellm

    messages: list[Any] = [{"role": "user", "content": TASK}]
    for _ in range(TURNS):
        chunks = []
        more = {"api_base": address, "api_key": key, "tools": FUNCTIONS, "num_retries": 0}
        async for chunk in await litellm.acompletion(model=model, messages=messages, stream=True, **more):
            chunks.append(chunk)
            yield chunk.choices[0].delta.content or ""
        message = litellm.stream_chunk_builder(chunks).choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            return
        for call in message.tool_calls:
            result = TOOLS[call.function.name](**json.loads(call.function.arguments or "{}"))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


async def ollama(address: str, key: str, model: str) -> AsyncIterator[str]:
    from ollama import AsyncClient

    client = AsyncClient(address, headers={"authorization": f"Bearer {key}"})
    messages: list[Any] = [{"role": "user", "content": TASK}]
    for _ in range(TURNS):
        text, calls = "", []
        async for part in await client.chat(model, messages, tools=[*TOOLS.values()], stream=True):
            yield part.message.content or ""
            text += part.message.content or ""
            calls += part.message.tool_calls or ()
        messages.append({"role": "assistant", "content": text, "tool_calls": calls})
        if not calls:
            return
        for call in calls:
            result = TOOLS[call.function.name](**call.function.arguments)
            messages.append({"role": "tool", "content": result, "tool_name": call.function.name})


async def one(clients: Mapping[str, Any], name: str, address: str, key: str, model: str) -> dict[str, Any]:
    """What came of one model: the pieces of text, and the error where there was one."""
    notes.clear()
    pieces: list[str] = []
    error = ""
    try:
        async for piece in clients[name](address, key, model):
            if piece:
                pieces.append(piece)  # noqa: PERF401  what came before an error counts, too
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}" if str(failure) else traceback.format_exc()
    return {"model": model, "pieces": pieces, "error": error}


async def main(clients: Mapping[str, Any], name: str, address: str, key: str, models: list[str]) -> None:
    os.environ.setdefault("LANGSMITH_TRACING", "false")
    for model in models:
        print(json.dumps(await one(clients, name, address, key, model)), flush=True)


if __name__ == "__main__":
    asyncio.run(main(globals(), sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
