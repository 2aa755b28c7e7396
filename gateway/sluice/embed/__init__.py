"""The chat widget that web pages embed, and a demo page."""
