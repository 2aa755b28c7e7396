"""The backends for Anthropic's Messages API, at Anthropic and on Vertex AI."""
