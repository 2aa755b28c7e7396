// @anthropic-ai/sdk: `messages.stream`, and the message that it holds at the end.
import Anthropic from '@anthropic-ai/sdk';
import { run } from './asks.mjs';

await run(async (asked, shown) => {
  const client = new Anthropic({ baseURL: asked.base_url, apiKey: asked.key, maxRetries: 0, timeout: 60000 });
  const stream = client.messages.stream({ max_tokens: 1000, ...asked.body });
  for await (const event of stream) {
    if (event.type !== 'content_block_delta') continue;
    if (event.delta.type === 'text_delta') shown.text += event.delta.text;
    if (event.delta.type === 'thinking_delta') shown.reasoning += event.delta.thinking;
  }
  const { content, stop_reason, usage } = await stream.finalMessage();
  const text = content.map(block => (block.type === 'text' ? block.text : '')).join('');
  if (shown.text !== text) throw new Error(`the pieces make ${shown.text}, put together they are ${text}`);
  shown.finish = stop_reason;
  shown.usage = [usage.input_tokens, usage.output_tokens];
  shown.calls = content.filter(block => block.type === 'tool_use').map(block => [block.name, block.input]);
});
