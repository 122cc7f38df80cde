"""The plans to start with. From then on they are the operator's, to be changed in the admin."""

from __future__ import annotations

from typing import Any

from django.db import migrations

#: What the free plan includes: what costs nothing, and the vendors' small models, by any name they go by.
FREE_MODELS = [
    "local/*",
    "simulated/*",
    "ollama/*",
    *(
        pattern
        for family in (
            "gemini-1.5-flash*",
            "gemini-2.0-flash*",
            "gemini-2.5-flash*",
            "gpt-4o-mini*",
            "gpt-4.1-nano*",
            "gpt-4.1-mini*",
            "gpt-5-nano*",
            "gpt-5-mini*",
            "claude-3-haiku*",
            "claude-3-5-haiku*",
            "claude-haiku-4-5*",
            "deepseek-chat*",
            "llama-3.1-8b*",
            "Llama-3.3-70B-Instruct-Turbo*",
        )
        for pattern in (family, f"*/{family}")
    ),
]

PLANS: dict[str, dict[str, Any]] = {
    "free": {
        "name": "Free",
        "requests_per_hour": 50,
        "tokens_per_day": 10_000,
        "allowed_models": FREE_MODELS,
        "priority": 0,
    },
    "premium": {"name": "Premium", "requests_per_hour": 500, "tokens_per_day": 100_000, "priority": 10},
    "enterprise": {"name": "Enterprise", "requests_per_hour": 5_000, "tokens_per_day": 1_000_000, "priority": 20},
    "unlimited": {"name": "Unlimited", "priority": 30},
}


def create_plans(apps: Any, schema_editor: Any) -> None:
    plans = apps.get_model("accounts", "Plan").objects.using(schema_editor.connection.alias)
    for slug, values in PLANS.items():
        plans.get_or_create(slug=slug, defaults=values)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [migrations.RunPython(create_plans, migrations.RunPython.noop)]
