// The openai SDK for JavaScript: its stream iterated, and the deltas added up by index.
import OpenAI from 'openai';
import { run, textOf } from './asks.mjs';

await run(async (asked, shown) => {
  const client = new OpenAI({ baseURL: asked.base_url, apiKey: asked.key, maxRetries: 0, timeout: 60000 });
  const stream = await client.chat.completions.create({ ...asked.body, stream: true, stream_options: { include_usage: true } });
  const calls = new Map();
  try {
    for await (const chunk of stream) {
      for (const choice of chunk.choices ?? []) if ((choice.index ?? 0) === 0) take(choice, shown, calls);
      if (chunk.usage) shown.usage = [chunk.usage.prompt_tokens, chunk.usage.completion_tokens];
    }
  } finally {
    shown.calls = [...calls.values()];
  }
});

function take(choice, shown, calls) {
  shown.finish = choice.finish_reason || shown.finish;
  const delta = choice.delta ?? {};
  shown.text += textOf(delta.content);
  shown.refusal += delta.refusal ?? '';
  shown.reasoning += textOf(delta.reasoning_content || delta.reasoning);
  for (const piece of delta.tool_calls ?? []) {
    if (!calls.has(piece.index)) calls.set(piece.index, ['', '']);
    const call = calls.get(piece.index);
    call[0] ||= piece.function?.name ?? '';
    call[1] += textOf(piece.function?.arguments);
  }
}
