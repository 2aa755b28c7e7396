// JavaScript's libraries on the task, with two tools: node libraries.mjs NAME ADDRESS KEY MODEL...; one line of JSON per model.
// As libraries.py: each function streams, and gives the pieces of text in the order in which they came.
const TASK = "Write a short note, read it again, and say what it says.";
const TURNS = 6;
let note = "";
const tools = { write_note: ({ text }) => ((note = text), "kept"), read_note: () => note };

async function* aiSdk(model) {
  const { streamText, tool, stepCountIs } = await import("ai");
  const { z } = await import("zod");
  const given = {
    write_note: tool({ description: "Keep a note.", inputSchema: z.object({ text: z.string() }), execute: tools.write_note }),
    read_note: tool({ description: "Give it.", inputSchema: z.object({}), execute: tools.read_note }),
  };
  const running = streamText({ model, tools: given, prompt: TASK, maxRetries: 0, stopWhen: stepCountIs(TURNS), onError() {} });
  for await (const part of running.fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") yield part.text;
  }
}

const clients = {
  // its default: the Responses API
  async *ai_sdk_openai(address, key, model) {
    const { createOpenAI } = await import("@ai-sdk/openai");
    yield* aiSdk(createOpenAI({ baseURL: `${address}/v1`, apiKey: key })(model));
  },
  async *ai_sdk_compatible(address, key, model) {
    const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
    yield* aiSdk(createOpenAICompatible({ name: "sluice", baseURL: `${address}/v1`, apiKey: key })(model));
  },
  async *ollama(address, key, model) {
    const { Ollama } = await import("ollama");
    const client = new Ollama({ host: address, headers: { authorization: `Bearer ${key}` } });
    const object = (properties, required) => ({ type: "object", properties, required });
    const shown = [
      { name: "write_note", description: "Keep a note.", parameters: object({ text: { type: "string" } }, ["text"]) },
      { name: "read_note", description: "Give it.", parameters: object({}, []) },
    ].map((one) => ({ type: "function", function: one }));
    const messages = [{ role: "user", content: TASK }];
    for (let turn = 0; turn < TURNS; turn++) {
      const said = { role: "assistant", content: "", tool_calls: [] };
      for await (const part of await client.chat({ model, messages, tools: shown, stream: true })) {
        yield part.message.content;
        said.content += part.message.content;
        said.tool_calls.push(...(part.message.tool_calls ?? []));
      }
      messages.push(said);
      if (!said.tool_calls.length) return;
      for (const { function: call } of said.tool_calls)
        messages.push({ role: "tool", content: tools[call.name](call.arguments), tool_name: call.name });
    }
  },
  // it starts a Claude Code of its own
  async *agent_sdk(address, key, model) {
    const { query } = await import("@anthropic-ai/claude-agent-sdk");
    const cwd = process.env.WORK;
    const options = { model, cwd, allowedTools: ["Write", "Read"], permissionMode: "acceptEdits", includePartialMessages: true };
    const task = `Write a short text into ${cwd}/note.txt, read it again, and say what it says.`;
    const env = { ...process.env, ANTHROPIC_BASE_URL: address, ANTHROPIC_API_KEY: key, ANTHROPIC_SMALL_FAST_MODEL: model };
    for await (const message of query({ prompt: task, options: { ...options, env } })) {
      if (message.type === "stream_event" && message.event.delta?.type === "text_delta") yield message.event.delta.text;
      if (message.type === "result" && message.is_error) throw new Error(message.result ?? message.subtype);
    }
  },
};

const [name, address, key, ...models] = process.argv.slice(2);
for (const model of models) {
  note = "";
  const pieces = [];
  let error = "";
  try {
    for await (const piece of clients[name](address, key, model)) if (piece) pieces.push(piece);
  } catch (failure) {
    error = `${failure.name}: ${failure.message}`;
  }
  console.log(JSON.stringify({ model, pieces, error }));
}
