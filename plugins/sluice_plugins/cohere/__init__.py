"""The backend for Cohere's API."""
