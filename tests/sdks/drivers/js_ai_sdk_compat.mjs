// The AI SDK with @ai-sdk/openai-compatible.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { runModels } from './ai_sdk.mjs';

await runModels(asked => createOpenAICompatible({ name: 'any', baseURL: asked.base_url, apiKey: asked.key, includeUsage: true }));
