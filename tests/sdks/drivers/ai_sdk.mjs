// What streamText of the AI SDK shows of a model of any provider.
import { jsonSchema, streamText, tool } from 'ai';
import { failure, run, textOf } from './asks.mjs';

globalThis.AI_SDK_LOG_WARNINGS = false; // they go to stdout

export const runModels = modelOf =>
  run(async (asked, shown) => {
    const { model, messages, tools = [], ...others } = asked.body;
    const most = others.max_tokens ?? others.max_completion_tokens;
    const declared = tools.map(({ function: f }) => [f.name, tool({ inputSchema: jsonSchema(f.parameters ?? { type: 'object' }) })]);
    const result = streamText({
      model: modelOf(asked)(model),
      messages: messages.map(({ role, content }) => ({ role: role === 'developer' ? 'system' : role, content })), // it knows no other
      tools: Object.fromEntries(declared),
      maxRetries: 0,
      maxOutputTokens: most < 1 ? undefined : most, // less than one it refuses to ask for
      allowSystemInMessages: true,
      onError: () => {},
    });
    for await (const part of result.fullStream) {
      switch (part.type) {
        case 'text-delta':
          shown.text += part.text;
          break;
        case 'reasoning-delta':
          shown.reasoning += part.text;
          break;
        case 'tool-call':
          shown.calls.push([part.toolName, textOf(part.input)]);
          break;
        case 'finish':
          shown.finish = part.finishReason?.replace('-', '_'); // its own spelling
          if (part.totalUsage?.inputTokens != null) shown.usage = [part.totalUsage.inputTokens, part.totalUsage.outputTokens];
          break;
        case 'error':
          shown.error ??= failure(part.error);
          break;
      }
    }
  });
