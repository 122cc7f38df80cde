"""Django's registration of the project itself, for its commands and system checks."""

from django.apps import AppConfig


class LlmchatConfig(AppConfig):
    name = "llmchat"
    verbose_name = "llmchat"
