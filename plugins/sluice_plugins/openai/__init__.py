"""The backend for OpenAI's Chat Completions, and for OpenAI's other endpoints."""
