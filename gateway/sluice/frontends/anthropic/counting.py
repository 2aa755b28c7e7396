"""The request of `POST /v1/messages/count_tokens`: counted by an upstream that can, otherwise estimated, as
for limits.

Standard: https://platform.claude.com/docs/en/api/messages/count_tokens
"""

from sluice.frontends import RequestHead
from sluice.frontends.anthropic.request import chat_of
from sluice.frontends.estimates import count_request, prompt_tokens
from sluice.model.chat import ChatRequest
from sluice.model.operations import OperationRequest
from sluice.wire.jsontext import checked_object, unambiguous_object


def counted(body: bytes, head: RequestHead) -> OperationRequest:
    """Parses the request. Nothing is generated or billed, so limits of tokens do not apply. Raises
    BadRequest."""
    wire = unambiguous_object(body)
    return count_of(chat_of(checked_object(body)) if wire is None else chat_of(wire, body))


def count_of(chat: ChatRequest) -> OperationRequest:
    """Returns the request to count the tokens of this one."""
    tokens = prompt_tokens(chat)
    return count_request(chat, tokens, b'{"input_tokens":%d}' % tokens, chat.wire)
