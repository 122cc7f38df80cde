"""How the OpenAPI schema tells of our keys: both ways to present one."""

from __future__ import annotations

from drf_spectacular.extensions import OpenApiAuthenticationExtension


class APIKeyScheme(OpenApiAuthenticationExtension):
    target_class = "accounts.authentication.APIKeyAuthentication"
    name = ["bearer", "apiKey"]

    def get_security_requirement(self, auto_schema: object) -> list[dict[str, list[str]]]:
        # Either is enough; one mapping with both would ask for both.
        return [{"bearer": []}, {"apiKey": []}]

    def get_security_definition(self, auto_schema: object) -> list[dict[str, str]]:
        return [
            {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer llmc_..."},
            {
                "type": "apiKey",
                "in": "header",
                "name": "X-API-Key",
                "description": "The same key in a header of its own.",
            },
        ]
