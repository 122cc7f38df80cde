"""Runs inside MLflow's own environment: makes one endpoint for each of the vendor's models on a running server.

python mlflow_prepare.py SERVER UPSTREAM NAME=MODEL...
"""

from __future__ import annotations

import sys

from mlflow.entities.gateway_endpoint import GatewayEndpointModelConfig, GatewayModelLinkageType
from mlflow.store.tracking.rest_store import RestStore
from mlflow.utils.rest_utils import MlflowHostCreds

server, upstream, *models = sys.argv[1:]
store = RestStore(lambda: MlflowHostCreds(server))
secret = store.create_gateway_secret(
    "mock", {"api_key": "mock"}, provider="openai", auth_config={"api_base": f"{upstream}/v1"}
)
for each in models:
    name, _, model = each.partition("=")
    definition = store.create_gateway_model_definition(name, secret.secret_id, "openai", model)
    linked = GatewayEndpointModelConfig(
        model_definition_id=definition.model_definition_id, linkage_type=GatewayModelLinkageType.PRIMARY, weight=1.0
    )
    store.create_gateway_endpoint(name, [linked])
