"""Clients of real providers, and the formats they speak."""

from llm_patterns.providers.http import AnthropicMessages, OpenAICompatibleChat

__all__ = ["AnthropicMessages", "OpenAICompatibleChat"]
