// The openai SDK for JavaScript: `responses.stream`, and the response that it holds at the end.
import OpenAI from 'openai';
import { run, textOf } from './asks.mjs';

await run(async (asked, shown) => {
  const client = new OpenAI({ baseURL: asked.base_url, apiKey: asked.key, maxRetries: 0, timeout: 60000 });
  const stream = client.responses.stream(asked.body);
  for await (const event of stream) {
    if (event.type === 'response.output_text.delta') shown.text += event.delta;
    if (event.type === 'response.reasoning_summary_text.delta') shown.reasoning += event.delta;
  }
  const { error, output, output_text, status, usage } = await stream.finalResponse();
  if (shown.text !== output_text) throw new Error(`the pieces make ${shown.text}, put together they are ${output_text}`);
  shown.finish = status;
  if (usage) shown.usage = [usage.input_tokens, usage.output_tokens];
  for (const item of output) {
    if (item.type === 'function_call') shown.calls.push([item.name, item.arguments]);
    for (const part of item.content ?? []) if (part.type === 'refusal') shown.refusal += part.refusal;
  }
  if (error) throw Object.assign(new Error(textOf(error.message)), { code: error.code });
});
