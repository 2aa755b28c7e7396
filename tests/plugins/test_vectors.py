"""Embeddings by Cohere's API and on Bedrock: what is sent, and OpenAI's document made of the answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from sluice.backends.protocol import CarriesOperations, FansOut
from sluice.backends.read_response import ReadResponse
from sluice.errors import BadRequest, UpstreamError
from sluice.frontends.gemini import operations as gemini
from sluice.frontends.openai.embeddings import embeddings
from sluice.model.events import Finished, Usage, Verbatim
from sluice_plugins.bedrock.backend import Bedrock
from sluice_plugins.cohere.backend import Cohere
from sluice_plugins.gemini.backend import Gemini
from tests.plugins.credentials.oracle import ask
from tests.plugins.gemini.test_passing import head

GOLDEN = Path(__file__).parents[1] / "golden" / "embeddings"
BEDROCK = Bedrock(region="eu-central-1")
TITAN, NOVA, ON_BEDROCK = (
    "amazon.titan-embed-text-v2:0",
    "amazon.nova-2-multimodal-embeddings-v1:0",
    "eu.cohere.embed-v4:0",
)


def asked(**fields: Any) -> Any:
    return embeddings(json.dumps({"model": "chat", **fields}).encode(), head())


def of_gemini(*kinds: Any, **more: Any) -> Any:
    more = {"embedContentConfig": more["config"]} if more else {}
    requests = [{"content": {"parts": [{"text": "a"}]}, "taskType": kind, **more} for kind in kinds]
    return gemini.embed_all(json.dumps({"requests": requests}).encode(), head())


def in_config(kind: Any) -> Any:
    return of_gemini(None, config={"taskType": kind})


def sent(backend: CarriesOperations, chat: Any, model: str) -> tuple[str, Any]:
    operation = backend.operation("embeddings", "openai")
    assert operation is not None
    request = operation.whole_request(chat, model)
    assert request.beside == ()
    assert dict(request.headers)["accept"] == "application/json"
    return request.url, json.loads(request.body)


def test_cohere_is_asked_in_its_own_words() -> None:
    url, body = sent(
        Cohere(), asked(input=["a", "b"], dimensions=256, encoding_format="base64", user="u"), "embed-v4.0"
    )
    assert url == "https://api.cohere.com/v2/embed"
    assert body == {
        "model": "embed-v4.0", "texts": ["a", "b"], "input_type": "search_document", "embedding_types": ["float"],
        "output_dimension": 256,
    }  # fmt: skip
    _, body = sent(Cohere(input_type="clustering"), asked(input="a", truncate="END"), "m")
    assert (body["texts"], body["input_type"], body["truncate"]) == (["a"], "clustering", "END")


@pytest.mark.parametrize(("chat", "purpose"), [
    (asked(input="a", input_type="search_query"), "search_query"), (asked(input="a", input_type=7), "search_document"),
    (of_gemini("RETRIEVAL_QUERY"), "search_query"), (of_gemini("CLUSTERING", "CLUSTERING"), "clustering"),
    (of_gemini("SEMANTIC_SIMILARITY"), "search_document"), (in_config("CLUSTERING"), "clustering"),
    (of_gemini("CLUSTERING", config={"taskType": "RETRIEVAL_QUERY"}), "search_query"),
])  # fmt: skip
def test_callers_say_what_vectors_are_for(chat: Any, purpose: str) -> None:
    for backend, model in ((Cohere(), "m"), (BEDROCK, ON_BEDROCK)):
        assert sent(backend, chat, model)[1]["input_type"] == purpose


@pytest.mark.parametrize("kind", [["CLUSTERING"], {"a": 1}, 7, True])
def test_a_purpose_that_is_no_text_is_refused(kind: Any) -> None:
    for request in (of_gemini, in_config):
        with pytest.raises(BadRequest, match="taskType"):
            request(kind if kind != ["CLUSTERING"] else ["CLUSTERING", "CLUSTERING"])


@pytest.mark.parametrize("count", ["1e300", "-1", "1000000001", "2.5", "9" * 400])
def test_a_count_of_tokens_that_cannot_be_is_as_if_it_were_not_there(count: str) -> None:
    body = f'{{"embeddings": {{"float": [[1]]}}, "meta": {{"billed_units": {{"input_tokens": {count}}}}}}}'
    document, usage = decoded(Cohere(), body.encode(), {})
    assert (document.get("usage"), usage) == (None, None)


def test_counts_whose_sum_is_beyond_all_bounds_are_as_if_they_were_not_there() -> None:
    vector = '{"embeddings": {"values": [1], "statistics": {"token_count": 1.7e308}}}'
    document, usage = decoded(Gemini(), f'{{"predictions": [{vector}, {vector}]}}'.encode(), {})
    assert (document.get("usage"), usage) == (None, None)


def test_models_on_bedrock_are_asked_in_their_makers_forms() -> None:
    chat = asked(input="a", dimensions=512, normalize=False)
    url, body = sent(BEDROCK, chat, TITAN)
    assert (
        url
        == "https://bedrock-runtime.eu-central-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke"
    )
    assert body == {"inputText": "a", "dimensions": 512, "normalize": False}
    assert sent(BEDROCK, asked(input=["a"]), "amazon.titan-embed-text-v1")[1] == {"inputText": "a"}
    _, body = sent(BEDROCK, chat, "amazon.titan-embed-image-v1")
    assert body == {"inputText": "a", "embeddingConfig": {"outputEmbeddingLength": 512}}
    _, body = sent(BEDROCK, asked(input="a", input_type="search_query"), NOVA)
    assert body["singleEmbeddingParams"] == {
        "embeddingPurpose": "GENERIC_RETRIEVAL", "text": {"truncationMode": "NONE", "value": "a"}
    }  # fmt: skip
    url, body = sent(
        BEDROCK, asked(input=["a", "b"]), f"arn:aws:bedrock:eu-central-1:1:inference-profile/{ON_BEDROCK}"
    )
    assert url.endswith("%3Ainference-profile%2Feu.cohere.embed-v4%3A0/invoke")
    assert body == {"texts": ["a", "b"], "input_type": "search_document", "embedding_types": ["float"]}


@pytest.mark.parametrize(("backend", "chat", "model"), [
    (Cohere(), asked(input=[1, 2]), "m"), (BEDROCK, asked(input=[[1, 2]]), TITAN), (BEDROCK, asked(input=["a"] * 257), TITAN),
    (BEDROCK, asked(input=["a"] * 257), NOVA), (BEDROCK, asked(input="a"), "anthropic.claude-opus-4-6-v1"),
    (Cohere(), of_gemini("CLUSTERING", "RETRIEVAL_QUERY"), "m"), (Cohere(), asked(input=["a", {"image": "b"}]), "m"),
])  # fmt: skip
def test_what_a_model_cannot_embed_is_refused(backend: Any, chat: Any, model: str) -> None:
    with pytest.raises(BadRequest):
        sent(backend, chat, model)


@pytest.mark.parametrize("model", [TITAN, NOVA])
def test_several_texts_are_several_requests_to_models_that_take_one(model: str) -> None:
    operation = BEDROCK.operation("embeddings", "openai")
    assert operation is not None
    request = operation.whole_request(asked(input=["a", "b", "c"], dimensions=256), model)
    alone = [operation.whole_request(asked(input=text, dimensions=256), model).body for text in "abc"]
    assert [request.body, *request.beside] == alone


def decoded(backend: CarriesOperations, body: bytes, headers: dict[str, str]) -> tuple[Any, Usage | None]:
    operation = backend.operation("embeddings", "openai")
    assert operation is not None
    decoder: Any = operation.whole_decoder()
    if hasattr(decoder, "begin"):
        decoder.begin(headers)
    events = [event for byte in body for event in decoder.feed(bytes([byte]))]
    *_, finished, passed = [*events, *decoder.close()]
    assert isinstance(finished, Finished)
    assert isinstance(passed, Verbatim)
    return json.loads(passed.data), finished.usage


COUNTED = {"x-amzn-bedrock-input-token-count": "9"}
ANSWERS = [
    (Cohere(), "cohere_v4", [[0.25, -0.5], [0.001, 2]], 4), (Cohere(), "cohere_floats", [[0.25, -0.5], [0.001, 2]], None),
    (BEDROCK, "cohere_floats", [[0.25, -0.5], [0.001, 2]], 9), (BEDROCK, "cohere_v4", [[0.25, -0.5], [0.001, 2]], 4),
    (BEDROCK, "bedrock_titan", [[0.25, -0.5]], 3), (BEDROCK, "bedrock_nova", [[0.25, -0.5]], 9),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "name", "vectors", "tokens"), ANSWERS)
def test_answers_become_openais(backend: Any, name: str, vectors: Any, tokens: int | None) -> None:
    body = (GOLDEN / f"{name}.json").read_bytes()
    document, usage = decoded(backend, body, COUNTED)
    assert [item["embedding"] for item in document["data"]] == vectors
    assert [item["index"] for item in document["data"]] == list(range(len(vectors)))
    assert usage == (Usage(tokens) if tokens is not None else None)
    assert document.get("usage") == (
        {"prompt_tokens": tokens, "total_tokens": tokens} if tokens is not None else None
    )


COUNTS = [([{"x-amzn-bedrock-input-token-count": "4"}] * 2, 8), ([COUNTED, {}], None), ([{}, {}], None)]


@pytest.mark.parametrize(("headers", "tokens"), COUNTS)
def test_answers_to_several_requests_are_one(headers: list[dict[str, str]], tokens: int | None) -> None:
    operation = BEDROCK.operation("embeddings", "openai")
    assert isinstance(operation, FansOut)
    for name, told in (("bedrock_titan", 6), ("bedrock_nova", tokens)):
        body = (GOLDEN / f"{name}.json").read_bytes()
        joined = operation.joined([ReadResponse(200, one, body) for one in headers])
        document, usage = decoded(BEDROCK, joined.body, dict(joined.headers))
        assert [item["embedding"] for item in document["data"]] == [[0.25, -0.5], [0.25, -0.5]]
        assert [item["index"] for item in document["data"]] == [0, 1]
        assert usage == (Usage(told) if told is not None else None)


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-amzn-bedrock-input-token-count": "-1"}, {"x-amzn-bedrock-input-token-count": "9" * 20}],
)
def test_odd_counts_are_none(headers: dict[str, str]) -> None:
    assert decoded(BEDROCK, (GOLDEN / "bedrock_nova.json").read_bytes(), headers)[1] is None


BROKEN = [
    b"", b"[]", b"{}", b"<html>", b'{"embeddings":[]}', b'{"embeddings":{"int8":[[1]]}}', b'{"embeddings":{"float":[null]}}',
    b'{"embedding":null}', b'{"embedding":"x"}', b'{"embeddings":[{"embeddingType":"TEXT"}]}', b'{"message":"Too many tokens"}',
    b"[" * 20000, b'[{"embedding":[1]},{}]', b'[{"embedding":[1]},7]',
]  # fmt: skip


@pytest.mark.parametrize("backend", [Cohere(), BEDROCK])
@pytest.mark.parametrize("body", BROKEN)
def test_what_has_no_embeddings_is_an_error(backend: Any, body: bytes) -> None:
    with pytest.raises(UpstreamError):
        decoded(backend, body, {})


def test_an_odd_meta_spoils_no_vectors() -> None:
    document, usage = decoded(Cohere(), b'{"embeddings":{"float":[[1]]},"meta":{"billed_units":7}}', {})
    assert (len(document["data"]), usage) == (1, None)


ORACLE = """
import json, sys
from botocore.session import get_session
from botocore.serialize import create_serializer

service = get_session().get_service_model("bedrock-runtime")
operation = service.operation_model("InvokeModel")
writes = create_serializer(service.metadata["protocol"])
paths = []
for model in json.load(sys.stdin):
    paths.append(writes.serialize_to_request({"modelId": model, "body": b"{}"}, operation)["url_path"])
print(json.dumps(paths))
"""


def test_botocore_asks_at_the_same_place() -> None:
    models = [
        TITAN,
        NOVA,
        ON_BEDROCK,
        f"arn:aws:bedrock:eu-central-1:123456789012:inference-profile/{ON_BEDROCK}",
    ]
    ours = [sent(BEDROCK, asked(input="a"), model)[0].partition(".com")[2] for model in models]
    assert ask("botocore", ORACLE, models) == ours
