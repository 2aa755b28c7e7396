from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sluice.conversations import ConversationStore
from sluice.conversations.memory import MemoryConversations
from sluice.conversations.sqlite import SqliteConversations


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationStore]:
    kept: ConversationStore = (
        MemoryConversations() if request.param == "memory" else SqliteConversations(tmp_path / "conversations.db")
    )
    yield kept
    await kept.close()
