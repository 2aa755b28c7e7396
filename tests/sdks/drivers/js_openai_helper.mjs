// The openai SDK for JavaScript: `chat.completions.stream`, and the completion that it holds at the end.
import OpenAI from 'openai';
import { run, textOf } from './asks.mjs';

await run(async (asked, shown) => {
  const client = new OpenAI({ baseURL: asked.base_url, apiKey: asked.key, maxRetries: 0, timeout: 60000 });
  const stream = client.chat.completions.stream({ ...asked.body, stream_options: { include_usage: true } });
  const completion = await stream.finalChatCompletion();
  if (completion.usage) shown.usage = [completion.usage.prompt_tokens, completion.usage.completion_tokens];
  const [choice] = completion.choices;
  if (choice === undefined) return;
  const message = choice.message;
  shown.finish = choice.finish_reason;
  shown.text = textOf(message.content);
  shown.refusal = message.refusal ?? '';
  shown.reasoning = textOf(message.reasoning_content || message.reasoning);
  shown.calls = (message.tool_calls ?? []).map(call => [call.function.name, call.function.arguments]);
});
