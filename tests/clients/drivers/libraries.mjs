// JavaScript's libraries on the task: node libraries.mjs NAME ADDRESS KEY MODEL...; one line of JSON per model.
// As libraries.py: each function streams, and gives the pieces of text in the order in which they came.
import { sdks } from "./sdks.mjs";
import { ASKED, OBJECT, TASK, TOOLS, TURNS, forget, run } from "./task.mjs";

const aiSdkModels = {
  // its default: the Responses API
  openai: async (address, key, model) => (await import("@ai-sdk/openai")).createOpenAI({ baseURL: `${address}/v1`, apiKey: key })(model),
  openai_chat: async (address, key, model) => (await import("@ai-sdk/openai")).createOpenAI({ baseURL: `${address}/v1`, apiKey: key }).chat(model),
  compatible: async (address, key, model) =>
    (await import("@ai-sdk/openai-compatible")).createOpenAICompatible({
      name: "sluice", baseURL: `${address}/v1`, apiKey: key, includeUsage: true, supportsStructuredOutputs: true,
    })(model),
  anthropic: async (address, key, model) => (await import("@ai-sdk/anthropic")).createAnthropic({ baseURL: `${address}/v1`, apiKey: key })(model),
  google: async (address, key, model) => (await import("@ai-sdk/google")).createGoogleGenerativeAI({ baseURL: `${address}/v1beta`, apiKey: key })(model),
};

async function aiSdkTools() {
  const { tool, jsonSchema } = await import("ai");
  const given = ({ name, description, parameters }) => tool({ description, inputSchema: jsonSchema(parameters), execute: run[name] });
  return Object.fromEntries(TOOLS.map((one) => [one.name, given(one)]));
}

// streamed, then the same whole, then an object: streamed with a schema
async function* aiSdk(model) {
  const { generateText, streamText, stepCountIs } = await import("ai");
  const options = { model, tools: await aiSdkTools(), prompt: TASK, maxRetries: 0, stopWhen: stepCountIs(TURNS) };
  const running = streamText({ ...options, onError() {} });
  for await (const part of running.fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") yield part.text;
  }
  if (!(await running.totalUsage).outputTokens) throw new Error("no usage");
  const { text, steps } = await generateText(options);
  if (text.trim() !== (await running.text).trim() || steps.length !== 3) throw new Error(`whole: ${text} in ${steps.length} steps`);
}

async function* aiSdkObject(model) {
  const { Output, generateText, jsonSchema, streamText } = await import("ai");
  const options = { model, prompt: ASKED, maxRetries: 0, output: Output.object({ schema: jsonSchema(OBJECT) }) };
  const running = streamText({ ...options, onError() {} });
  for await (const part of running.fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") yield part.text;
  }
  const [streamed, { output }] = [await running.output, await generateText(options)];
  if (JSON.stringify(streamed) !== JSON.stringify(output)) throw new Error(`whole: ${JSON.stringify(output)}`);
}

async function* langchain(chat) {
  const { HumanMessage, ToolMessage } = await import("@langchain/core/messages");
  const { concat } = await import("@langchain/core/utils/stream");
  const { tool } = await import("@langchain/core/tools");
  const bound = chat.bindTools(TOOLS.map(({ name, description, parameters }) => tool(run[name], { name, description, schema: parameters })));
  const messages = [new HumanMessage(TASK)];
  for (let turn = 0; turn < TURNS; turn++) {
    let whole;
    for await (const chunk of await bound.stream(messages)) {
      yield chunk.text;
      whole = whole === undefined ? chunk : concat(whole, chunk);
    }
    if (!whole.usage_metadata?.output_tokens) throw new Error("no usage");
    messages.push(whole);
    if (!whole.tool_calls.length) return;
    for (const { id, name, args } of whole.tool_calls) messages.push(new ToolMessage({ tool_call_id: id, content: run[name](args) }));
  }
}

async function* openaiAgents(api, address, key, model) {
  const { Agent, OpenAIProvider, Runner, tool } = await import("@openai/agents");
  const tools = TOOLS.map(({ name, description, parameters }) => tool({ name, description, parameters, strict: true, execute: run[name] }));
  const modelProvider = new OpenAIProvider({ baseURL: `${address}/v1`, apiKey: key, useResponses: api === "responses" });
  const runner = new Runner({ modelProvider, tracingDisabled: true });
  const running = await runner.run(new Agent({ name: "Notes", model, tools }), TASK, { stream: true });
  for await (const event of running)
    if (event.type === "raw_model_stream_event" && event.data.type === "output_text_delta") yield event.data.delta;
  await running.completed;
}

const clients = {
  ...sdks,
  ...Object.fromEntries(
    Object.entries(aiSdkModels).flatMap(([name, made]) => [
      [`ai_sdk_${name}`, async function* (...where) { yield* aiSdk(await made(...where)); }],
      [`ai_sdk_${name}_object`, async function* (...where) { yield* aiSdkObject(await made(...where)); }],
    ]),
  ),
  async *langchain_openai(address, key, model) {
    const { ChatOpenAI } = await import("@langchain/openai");
    yield* langchain(new ChatOpenAI({ model, apiKey: key, maxRetries: 0, configuration: { baseURL: `${address}/v1` } }));
  },
  async *langchain_responses(address, key, model) {
    const { ChatOpenAI } = await import("@langchain/openai");
    yield* langchain(new ChatOpenAI({ model, apiKey: key, maxRetries: 0, useResponsesApi: true, configuration: { baseURL: `${address}/v1` } }));
  },
  async *langchain_anthropic(address, key, model) {
    const { ChatAnthropic } = await import("@langchain/anthropic");
    yield* langchain(new ChatAnthropic({ model, apiKey: key, maxRetries: 0, anthropicApiUrl: address }));
  },
  openai_agents: (...where) => openaiAgents("responses", ...where),
  openai_agents_chat: (...where) => openaiAgents("chat_completions", ...where),
  async *mastra(address, key, model) {
    const { Agent } = await import("@mastra/core/agent");
    const { createTool } = await import("@mastra/core/tools");
    const { z } = await import("zod");
    const tools = {
      write_note: createTool({ id: "write_note", description: "Keep a note.", inputSchema: z.object({ text: z.string() }), execute: async (given) => run.write_note(given) }),
      read_note: createTool({ id: "read_note", description: "Give it.", inputSchema: z.object({}), execute: async () => run.read_note() }),
    };
    const agent = new Agent({ id: "notes", name: "Notes", instructions: "Keep notes.", tools, model: { id: `sluice/${model}`, url: `${address}/v1`, apiKey: key } });
    const running = await agent.stream(TASK, { maxSteps: TURNS });
    for await (const piece of running.textStream) yield piece;
    if (running.error) throw running.error;
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
  forget();
  const pieces = [];
  let error = "";
  try {
    for await (const piece of clients[name](address, key, model)) if (piece) pieces.push(piece);
  } catch (failure) {
    error = `${failure.name}: ${failure.message}`;
  }
  console.log(JSON.stringify({ model, pieces, error }));
}
process.exit();
