"""The commands as scripts use them: what stands on standard output is the answer alone."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from accounts.services import RAW_KEY
from llmchat.tests.furnished import Migrated
from llmchat.tests.servers import LiveServer, ServerFailed


def test_standard_output_holds_the_id_and_the_key_alone(migrated: Migrated, tmp_path: Path) -> None:
    machine = LiveServer(tmp_path)
    machine.environment.update(migrated.copy(machine.data))

    identifier = machine.manage("create_organization", "Acme", "--plan", "enterprise")
    key = machine.manage("create_api_key", "--organization", "Acme", "--scopes", "metrics")
    with pytest.raises(ServerFailed) as failure:
        machine.manage("create_organization", "Acme")

    assert str(UUID(identifier.strip())) + "\n" == identifier
    assert RAW_KEY.fullmatch(key.removesuffix("\n"))
    assert str(failure.value).partition("\n")[2] == (
        "CommandError: There is an organization 'Acme' already. Choose another name, or give it a key with: "
        "manage.py create_api_key --organization 'Acme'\n"
    )
