// As asks.py, for the drivers in JavaScript: asks as JSON on stdin, each answer a JSON line on stdout.
import { readFileSync } from 'node:fs';

const AT_ONCE = 16;

export const fresh = () => ({ text: '', reasoning: '', refusal: '', calls: [], finish: null, usage: null, error: null });

export const textOf = content => (typeof content === 'string' ? content : content == null ? '' : JSON.stringify(content));

export const failure = error => ({
  class: error?.constructor?.name ?? typeof error,
  status: error?.status ?? error?.statusCode ?? null,
  code: error?.code ?? error?.data?.error?.code ?? null,
  message: textOf(error?.error?.message ?? error?.message ?? error),
});

export async function run(ask) {
  const asks = JSON.parse(readFileSync(0, 'utf8'));
  const worker = async () => {
    for (let asked; (asked = asks.shift()) !== undefined; ) {
      const shown = fresh();
      try {
        await ask(asked, shown);
      } catch (error) {
        shown.error ??= failure(error);
      }
      process.stdout.write(JSON.stringify({ name: asked.name, ...shown }) + '\n');
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}
