// The AI SDK with @ai-sdk/anthropic.
import { createAnthropic } from '@ai-sdk/anthropic';
import { runModels } from './ai_sdk.mjs';

await runModels(asked => createAnthropic({ baseURL: `${asked.base_url}/v1`, apiKey: asked.key }));
