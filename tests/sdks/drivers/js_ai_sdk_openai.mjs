// The AI SDK with @ai-sdk/openai, its Chat Completions.
import { createOpenAI } from '@ai-sdk/openai';
import { runModels } from './ai_sdk.mjs';

await runModels(asked => createOpenAI({ baseURL: asked.base_url, apiKey: asked.key }).chat);
