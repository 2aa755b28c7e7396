// Client dialects as the playground speaks them: how a request is written, and what of an answer's pieces is text.
// `read(data)`: one event or line as JSON -> { text, reasoning, tools, tokens, error }; `whole(body)`: the same of an answer in one piece.
// `tools`: pieces of tool calls, [{ at, name, text }], which belong together by `at`. What is asked: `tools` as { name, description,
// parameters }, `images` as { type, data } with base64. A dialect with `plain` takes text alone.

const errorOf = (data) => {
  const error = data.error ?? (data.type === "error" ? data : null);
  return error ? (typeof error === "string" ? error : error.message || error.code || "error") : undefined;
};
const dataUrl = ({ type, data }) => `data:${type};base64,${data}`;
const openaiContent = ({ message, images }) => (images.length ? [{ type: "text", text: message }, ...images.map((image) => ({ type: "image_url", image_url: { url: dataUrl(image) } }))] : message);
const openaiMessages = (asked) => [...(asked.system ? [{ role: "system", content: asked.system }] : []), ...asked.history, { role: "user", content: openaiContent(asked) }];
const functions = ({ tools }) => (tools.length ? { tools: tools.map((tool) => ({ type: "function", function: tool })) } : {});
const text = (value) => (typeof value === "string" ? value : JSON.stringify(value ?? {}));
const openaiCalls = (calls) => (calls || []).map((call, n) => ({ at: call.index ?? n, name: call.function?.name || "", text: call.function?.arguments === undefined ? "" : text(call.function.arguments) }));

const outputs = (data, type, field) => (data.output || []).filter((item) => item.type === type).flatMap((item) => item[field] || []).map((part) => part.text || "").join("");

const blocks = (data) => ({
  text: (data.content || []).map((part) => part.text || "").join(""),
  reasoning: (data.content || []).map((part) => part.thinking || "").join(""),
  tools: (data.content || []).flatMap((part, at) => (part.type === "tool_use" ? [{ at, name: part.name, text: text(part.input) }] : [])),
  tokens: data.usage?.output_tokens,
  error: errorOf(data),
});

export const DIALECTS = {
  "openai chat": {
    title: "OpenAI Chat Completions",
    frontend: "openai",
    path: () => "/v1/chat/completions",
    body: (asked) => ({ model: asked.model, messages: openaiMessages(asked), stream: asked.stream, ...(asked.stream ? { stream_options: { include_usage: true } } : {}), ...(asked.most ? { max_tokens: asked.most } : {}), ...functions(asked) }),
    read: (data) => {
      const delta = data.choices?.[0]?.delta || {};
      return { text: delta.content || "", reasoning: delta.reasoning_content || delta.reasoning || "", tools: openaiCalls(delta.tool_calls), tokens: data.usage?.completion_tokens, error: errorOf(data) };
    },
    whole: (data) => ({ text: data.choices?.[0]?.message?.content || "", reasoning: data.choices?.[0]?.message?.reasoning_content || "", tools: openaiCalls(data.choices?.[0]?.message?.tool_calls), tokens: data.usage?.completion_tokens, error: errorOf(data) }),
  },
  "openai responses": {
    title: "OpenAI Responses",
    frontend: "responses",
    path: () => "/v1/responses",
    body: (asked) => ({ model: asked.model, input: [...asked.history, { role: "user", content: asked.images.length ? [{ type: "input_text", text: asked.message }, ...asked.images.map((image) => ({ type: "input_image", image_url: dataUrl(image) }))] : asked.message }], stream: asked.stream, store: false, ...(asked.tools.length ? { tools: asked.tools.map((tool) => ({ type: "function", ...tool })) } : {}), ...(asked.system ? { instructions: asked.system } : {}), ...(asked.most ? { max_output_tokens: asked.most } : {}) }),
    read: (data) => ({
      text: data.type === "response.output_text.delta" ? data.delta : "",
      reasoning: /^response\.reasoning\w*\.delta$/.test(data.type || "") ? data.delta : "",
      tools:
        data.type === "response.output_item.added" && data.item?.type === "function_call" ? [{ at: data.output_index, name: data.item.name, text: "" }]
        : data.type === "response.function_call_arguments.delta" ? [{ at: data.output_index, name: "", text: data.delta }]
        : [],
      tokens: data.response?.usage?.output_tokens,
      error: data.type === "error" || data.type === "response.failed" ? errorOf(data.response || data) || "failed" : undefined,
    }),
    whole: (data) => ({ text: outputs(data, "message", "content"), reasoning: outputs(data, "reasoning", "content") || outputs(data, "reasoning", "summary"), tools: (data.output || []).flatMap((item, at) => (item.type === "function_call" ? [{ at, name: item.name, text: item.arguments }] : [])), tokens: data.usage?.output_tokens, error: errorOf(data) }),
  },
  anthropic: {
    title: "Anthropic Messages",
    frontend: "anthropic",
    path: () => "/v1/messages",
    headers: { "anthropic-version": "2023-06-01" },
    body: (asked) => ({ model: asked.model, max_tokens: asked.most || 1024, messages: [...asked.history, { role: "user", content: asked.images.length ? [...asked.images.map(({ type, data }) => ({ type: "image", source: { type: "base64", media_type: type, data } })), { type: "text", text: asked.message }] : asked.message }], stream: asked.stream, ...(asked.system ? { system: asked.system } : {}), ...(asked.tools.length ? { tools: asked.tools.map(({ parameters, ...tool }) => ({ ...tool, input_schema: parameters })) } : {}) }),
    read: (data) => ({ text: data.delta?.text || "", reasoning: data.delta?.thinking || "", tools: data.content_block?.type === "tool_use" ? [{ at: data.index, name: data.content_block.name, text: "" }] : data.delta?.partial_json ? [{ at: data.index, name: "", text: data.delta.partial_json }] : [], tokens: data.usage?.output_tokens, error: errorOf(data) }),
    whole: blocks,
  },
  "widget (NDJSON)": {
    title: "NDJSON, of chat widgets",
    frontend: "widget",
    plain: true,
    path: (asked) => (asked.stream ? "/v1/chat/stream" : "/v1/chat"),
    headers: { accept: "application/x-ndjson; profile=full" },
    body: (asked) => ({ sessionId: asked.session, message: asked.message, model: asked.model }),
    read: (data) => ({ text: data.token || "", reasoning: data.type === "reasoning" ? data.text || data.reasoning || "" : "", tokens: data.usage?.outputTokens, error: data.type === "error" ? errorOf(data) : undefined }),
    whole: (data) => ({ text: data.message || "", error: errorOf(data) }),
  },
  ollama: {
    title: "Ollama",
    frontend: "ollama",
    path: () => "/api/chat",
    body: (asked) => ({ model: asked.model, messages: openaiMessages({ ...asked, images: [] }).map((turn, n, all) => (asked.images.length && n === all.length - 1 ? { ...turn, images: asked.images.map((image) => image.data) } : turn)), stream: asked.stream, ...(asked.most ? { options: { num_predict: asked.most } } : {}), ...functions(asked) }),
    read: (data) => ({ text: data.message?.content || "", reasoning: data.message?.thinking || "", tools: openaiCalls(data.message?.tool_calls), tokens: data.eval_count, error: errorOf(data) }),
    whole: (data) => DIALECTS.ollama.read(data),
  },
  gemini: {
    title: "Gemini",
    frontend: "gemini",
    path: (asked) => `/v1beta/models/${encodeURIComponent(asked.model)}:${asked.stream ? "streamGenerateContent?alt=sse" : "generateContent"}`,
    body: (asked) => ({
      contents: [...asked.history.map((turn) => ({ role: turn.role === "assistant" ? "model" : "user", parts: [{ text: turn.content }] })), { role: "user", parts: [...asked.images.map(({ type, data }) => ({ inlineData: { mimeType: type, data } })), { text: asked.message }] }],
      ...(asked.tools.length ? { tools: [{ functionDeclarations: asked.tools }] } : {}),
      ...(asked.system ? { systemInstruction: { parts: [{ text: asked.system }] } } : {}),
      ...(asked.most ? { generationConfig: { maxOutputTokens: asked.most } } : {}),
    }),
    read: (data) => {
      const parts = data.candidates?.[0]?.content?.parts || [];
      return { text: parts.filter((part) => !part.thought).map((part) => part.text || "").join(""), reasoning: parts.filter((part) => part.thought).map((part) => part.text || "").join(""), tools: parts.filter((part) => part.functionCall).map((part, n) => ({ at: `${data.responseId || ""}${part.functionCall.id || part.functionCall.name}${n}`, name: part.functionCall.name, text: text(part.functionCall.args) })), tokens: data.usageMetadata?.candidatesTokenCount, error: errorOf(data) };
    },
    whole: (data) => DIALECTS.gemini.read(data),
  },
};

// Server-sent events or lines of JSON, in pieces as they come -> JSON values. What is neither is passed over.
export function reader() {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split(/\r\n|\r|\n/);
    rest = lines.pop();
    return lines
      .map((line) => (line.startsWith("data:") ? line.slice(5) : line.startsWith("{") ? line : "").trim())
      .filter((line) => line.startsWith("{"))
      .flatMap((line) => {
        try {
          return [JSON.parse(line)];
        } catch {
          return [];
        }
      });
  };
}

// The same call for those who write programs. KEY stands where the key goes: the page has none.
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const headersOf = (dialect) => ({ "content-type": "application/json", authorization: "Bearer KEY", ...(DIALECTS[dialect].headers || {}) });

export function snippets(dialect, asked, base) {
  const url = base + DIALECTS[dialect].path(asked);
  const images = asked.images.map(({ type }) => ({ type, data: "BASE64" })); // megabytes of text, otherwise
  const body = JSON.stringify(DIALECTS[dialect].body({ ...asked, images }), null, 2);
  const headers = Object.entries(headersOf(dialect));
  const python = body.replace(/: (true|false|null)(?=[,\n}\]]|$)/g, (_, word) => `: ${{ true: "True", false: "False", null: "None" }[word]}`);
  return {
    curl: [`curl -N ${quoted(url)}`, ...headers.map(([name, value]) => `  -H ${quoted(`${name}: ${value}`)}`), `  -d ${quoted(body)}`].join(" \\\n"),
    Python: `import requests\n\nbody = ${python}\nheaders = ${JSON.stringify(Object.fromEntries(headers), null, 4)}\nwith requests.post(${JSON.stringify(url)}, json=body, headers=headers, stream=True) as answer:\n    for line in answer.iter_lines():\n        print(line.decode())\n`,
    JavaScript: `const answer = await fetch(${JSON.stringify(url)}, {\n  method: "POST",\n  headers: ${JSON.stringify(Object.fromEntries(headers))},\n  body: JSON.stringify(${body}),\n});\nfor await (const piece of answer.body.pipeThrough(new TextDecoderStream())) console.log(piece);\n`,
  };
}
