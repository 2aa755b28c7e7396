from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.conversations import ConversationStore
from gateway.conversations.memory import MemoryConversations
from gateway.conversations.sqlite import SqliteConversations


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationStore]:
    kept: ConversationStore = (
        MemoryConversations() if request.param == "memory" else SqliteConversations(tmp_path / "conversations.db")
    )
    yield kept
    await kept.close()
