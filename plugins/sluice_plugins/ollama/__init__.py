"""Ollama's own API. The entry point names the class here."""

from sluice_plugins.ollama.backend import Ollama

__all__ = ["Ollama"]
