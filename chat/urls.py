"""The chat app's paths below `/v1/`."""

from __future__ import annotations

from django.urls import path

from chat.history import ConversationViewSet, InteractionViewSet
from chat.models_api import ModelViewSet
from chat.views import ChatViewSet, CompletionsViewSet

urlpatterns = [
    path("chat", ChatViewSet.as_view({"post": "create"}), name="chat"),
    path("chat/stream", ChatViewSet.as_view({"post": "stream"}), name="chat-stream"),
    path("chat/completions", CompletionsViewSet.as_view({"post": "create"}), name="completions"),
    path("models", ModelViewSet.as_view({"get": "list"}), name="models"),
    path("models/<path:model>/status", ModelViewSet.as_view({"get": "status"}), name="model-status"),
    path("models/<path:model>", ModelViewSet.as_view({"get": "retrieve"}), name="model"),
    path("interactions", InteractionViewSet.as_view({"get": "list"}), name="interactions"),
    path("interactions/<uuid:id>", InteractionViewSet.as_view({"get": "retrieve"}), name="interaction"),
    path("conversations", ConversationViewSet.as_view({"get": "list"}), name="conversations"),
    path(
        "conversations/<uuid:id>",
        ConversationViewSet.as_view({"get": "retrieve", "delete": "destroy"}),
        name="conversation",
    ),
]
