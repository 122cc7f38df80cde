"""Django's registration of the project itself, for its commands, system checks and background tasks."""

from importlib import import_module

from django.apps import AppConfig


class LlmchatConfig(AppConfig):
    name = "llmchat"
    verbose_name = "llmchat"

    def ready(self) -> None:
        import_module("llmchat.checks")
        # Tasks are shared: without our application they would be sent to a broker that nobody has.
        import_module("llmchat.celery")
