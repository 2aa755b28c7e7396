// The vendors' own SDKs, by what they offer to put a stream together and to have tools called.
import { ASKED, FUNCTIONS, OBJECT, TASK, TOOLS, TURNS, run } from "./task.mjs";

const openai = async (address, key) => {
  const { default: OpenAI } = await import("openai");
  return new OpenAI({ baseURL: `${address}/v1`, apiKey: key, maxRetries: 0 });
};

const anthropic = async (address, key) => {
  const { default: Anthropic } = await import("@anthropic-ai/sdk");
  return new Anthropic({ baseURL: address, apiKey: key, maxRetries: 0 });
};

const same = (pieces, whole) => {
  if (pieces.join("") !== whole) throw new Error(`the pieces make ${pieces.join("")}, put together they are ${whole}`);
};

const format = { type: "json_schema", name: "note", schema: OBJECT, strict: true };

export const sdks = {
  async *openai_stream(address, key, model) {
    const client = await openai(address, key);
    const messages = [{ role: "user", content: TASK }];
    for (let turn = 0; turn < TURNS; turn++) {
      const stream = client.chat.completions.stream({ model, messages, tools: FUNCTIONS, stream_options: { include_usage: true } });
      const pieces = [];
      for await (const chunk of stream)
        if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content), yield pieces.at(-1);
      const { choices, usage } = await stream.finalChatCompletion();
      const { message, finish_reason } = choices[0];
      same(pieces, message.content ?? "");
      if (!usage?.completion_tokens) throw new Error("no usage");
      messages.push(message);
      if (finish_reason !== "tool_calls") return;
      for (const { id, function: call } of message.tool_calls)
        messages.push({ role: "tool", tool_call_id: id, content: run[call.name](JSON.parse(call.arguments)) });
    }
  },
  async *openai_run_tools(address, key, model) {
    const client = await openai(address, key);
    const tools = TOOLS.map((one) => ({ type: "function", function: { ...one, function: run[one.name], parse: JSON.parse } }));
    const runner = client.chat.completions.runTools({ model, messages: [{ role: "user", content: TASK }], tools, stream: true });
    for await (const chunk of runner) if (chunk.choices[0]?.delta.content) yield chunk.choices[0].delta.content;
    if (!(await runner.finalContent())) throw new Error("no final content");
  },
  async *openai_parse(address, key, model) {
    const client = await openai(address, key);
    const { name, schema, strict } = format;
    const wanted = { type: "json_schema", json_schema: { name, schema, strict } };
    const stream = client.chat.completions.stream({ model, messages: [{ role: "user", content: ASKED }], response_format: wanted });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) yield chunk.choices[0].delta.content;
    JSON.parse(await stream.finalContent());
  },
  async *openai_responses(address, key, model) {
    const client = await openai(address, key);
    const tools = TOOLS.map((one) => ({ type: "function", strict: true, ...one }));
    let input = [{ role: "user", content: TASK }];
    for (let turn = 0; turn < TURNS; turn++) {
      const stream = client.responses.stream({ model, input, tools, store: false });
      const pieces = [];
      for await (const event of stream)
        if (event.type === "response.output_text.delta") pieces.push(event.delta), yield event.delta;
      const { output, output_text, status, usage } = await stream.finalResponse();
      same(pieces, output_text);
      if (status !== "completed" || !usage?.output_tokens) throw new Error(`status ${status}, usage ${JSON.stringify(usage)}`);
      const calls = output.filter((item) => item.type === "function_call");
      if (!calls.length) return;
      const results = calls.map(({ call_id, name, arguments: given }) => ({
        type: "function_call_output", call_id, output: run[name](JSON.parse(given)),
      }));
      input = [...input, ...output.map(({ parsed_arguments, ...item }) => item), ...results];
    }
  },
  async *openai_responses_parse(address, key, model) {
    const client = await openai(address, key);
    const stream = client.responses.stream({ model, input: ASKED, store: false, text: { format } });
    for await (const event of stream) if (event.type === "response.output_text.delta") yield event.delta;
    JSON.parse((await stream.finalResponse()).output_text);
  },
  async *anthropic_stream(address, key, model) {
    const client = await anthropic(address, key);
    const tools = TOOLS.map(({ name, description, parameters }) => ({ name, description, input_schema: parameters }));
    const messages = [{ role: "user", content: TASK }];
    for (let turn = 0; turn < TURNS; turn++) {
      const stream = client.messages.stream({ model, max_tokens: 1000, messages, tools });
      const pieces = [];
      for await (const event of stream)
        if (event.type === "content_block_delta" && event.delta.type === "text_delta") pieces.push(event.delta.text), yield pieces.at(-1);
      const { content, stop_reason, usage } = await stream.finalMessage();
      same(pieces, content.filter((block) => block.type === "text").map((block) => block.text).join(""));
      if (!usage.output_tokens) throw new Error("no usage");
      messages.push({ role: "assistant", content });
      if (stop_reason !== "tool_use") return;
      const results = content.filter((block) => block.type === "tool_use");
      messages.push({
        role: "user",
        content: results.map(({ id, name, input }) => ({ type: "tool_result", tool_use_id: id, content: run[name](input) })),
      });
    }
  },
  async *anthropic_runner(address, key, model) {
    const { betaTool } = await import("@anthropic-ai/sdk/helpers/beta/json-schema");
    const client = await anthropic(address, key);
    const tools = TOOLS.map(({ name, description, parameters }) =>
      betaTool({ name, description, inputSchema: parameters, run: (given) => run[name](given) }));
    const runner = client.beta.messages.toolRunner({ model, max_tokens: 1000, tools, messages: [{ role: "user", content: TASK }], stream: true });
    for await (const stream of runner)
      for await (const event of stream)
        if (event.type === "content_block_delta" && event.delta.type === "text_delta") yield event.delta.text;
    if ((await runner.done()).stop_reason !== "end_turn") throw new Error("the runner has no last message");
  },
  async *anthropic_parse(address, key, model) {
    const { jsonSchemaOutputFormat } = await import("@anthropic-ai/sdk/helpers/json-schema");
    const client = await anthropic(address, key);
    const stream = client.messages.stream({
      model, max_tokens: 1000, messages: [{ role: "user", content: ASKED }], output_config: { format: jsonSchemaOutputFormat(OBJECT) },
    });
    stream.on("error", () => {});
    for await (const event of stream) if (event.type === "content_block_delta") yield event.delta.text;
    if (!(await stream.finalMessage()).parsed_output?.title) throw new Error("no parsed output");
  },
  async *genai_chat(address, key, model) {
    const { GoogleGenAI } = await import("@google/genai");
    const ai = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: address } });
    const declared = TOOLS.map(({ name, description, parameters }) => ({ name, description, parametersJsonSchema: parameters }));
    const chat = ai.chats.create({ model, config: { tools: [{ functionDeclarations: declared }] } });
    let message = TASK;
    for (let turn = 0; turn < TURNS; turn++) {
      const calls = [];
      let last;
      for await (const chunk of await chat.sendMessageStream({ message })) {
        const parts = chunk.candidates?.[0]?.content?.parts ?? [];
        for (const part of parts) if (part.text) yield part.text;
        calls.push(...(chunk.functionCalls ?? []));
        last = chunk;
      }
      if (last?.candidates?.[0]?.finishReason !== "STOP" || !last.usageMetadata?.totalTokenCount) throw new Error("no end, or no usage");
      if (!calls.length) return;
      message = calls.map(({ id, name, args }) => ({ functionResponse: { id, name, response: { output: run[name](args) } } }));
    }
  },
  async *genai_parse(address, key, model) {
    const { GoogleGenAI } = await import("@google/genai");
    const ai = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: address } });
    const config = { responseMimeType: "application/json", responseJsonSchema: OBJECT };
    for await (const chunk of await ai.models.generateContentStream({ model, contents: ASKED, config })) yield chunk.text ?? "";
  },
  async *ollama(address, key, model) {
    const { Ollama } = await import("ollama");
    const client = new Ollama({ host: address, headers: { authorization: `Bearer ${key}` } });
    const messages = [{ role: "user", content: TASK }];
    for (let turn = 0; turn < TURNS; turn++) {
      const said = { role: "assistant", content: "", tool_calls: [] };
      for await (const part of await client.chat({ model, messages, tools: FUNCTIONS, stream: true })) {
        yield part.message.content;
        said.content += part.message.content;
        said.tool_calls.push(...(part.message.tool_calls ?? []));
      }
      messages.push(said);
      if (!said.tool_calls.length) return;
      for (const { function: call } of said.tool_calls)
        messages.push({ role: "tool", content: run[call.name](call.arguments), tool_name: call.name });
    }
  },
  async *ollama_format(address, key, model) {
    const { Ollama } = await import("ollama");
    const client = new Ollama({ host: address, headers: { authorization: `Bearer ${key}` } });
    const messages = [{ role: "user", content: ASKED }];
    for await (const part of await client.chat({ model, messages, format: OBJECT, stream: true })) yield part.message.content;
  },
};
