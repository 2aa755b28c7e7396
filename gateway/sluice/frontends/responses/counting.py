"""The request of `POST /v1/responses/input_tokens`: counted by an upstream that can, otherwise estimated, as
for limits.

Standard: https://platform.openai.com/docs/api-reference/responses/input-tokens
"""

from sluice.frontends import RequestHead
from sluice.frontends.checks import refused
from sluice.frontends.estimates import count_request, prompt_tokens
from sluice.frontends.responses.request import chat_of
from sluice.model.operations import OperationRequest
from sluice.wire.jsontext import checked_object, unambiguous_object


def counted(body: bytes, head: RequestHead) -> OperationRequest:
    """Parses the request. Nothing is generated or billed, so limits of tokens do not apply. Raises
    BadRequest, also for references to kept responses: only the tokens in the request itself are counted."""
    wire = unambiguous_object(body)
    chat = chat_of(checked_object(body)) if wire is None else chat_of(wire, body)
    if chat.wire is not None and chat.wire.get("previous_response_id") is not None:
        raise refused("previous_response_id", "is not counted: send the whole conversation as input")
    tokens = prompt_tokens(chat)
    return count_request(
        chat, tokens, b'{"object":"response.input_tokens","input_tokens":%d}' % tokens, chat.wire
    )
