"""AWS's signatures: the vectors that AWS publishes, and botocore as oracle."""

import random
from calendar import timegm
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest

from sluice.wire.sigv4 import AwsKeys, Signer, canonical_request, host_of
from tests.plugins.credentials.oracle import ask

EXAMPLE = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
STAMP = "20150830T123600Z"
AT = timegm((2015, 8, 30, 12, 36, 0))
HOST = "https://example.amazonaws.com"
LETTERS = "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# The suite of AWS: name, method, URL behind the host, headers beside host and x-amz-date, signature.
SUITE = [
    ("get-vanilla", "GET", "/", {}, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    ("post-vanilla", "POST", "/", {}, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    (
        "get-vanilla-query-order-key-case",
        "GET",
        "/?Param2=value2&Param1=value1",
        {},
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "get-unreserved",
        "GET",
        LETTERS,
        {},
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    (
        "post-header-key-sort",
        "POST",
        "/",
        {"my-header1": "value1"},
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    ("get-slash", "GET", "//", {}, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    (
        "get-slash-dot-slash",
        "GET",
        "/./",
        {},
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-relative",
        "GET",
        "/example/..",
        {},
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
]


@pytest.mark.parametrize(
    ("name", "method", "path", "headers", "signature"), SUITE, ids=[row[0] for row in SUITE]
)
def test_the_published_suite(
    name: str, method: str, path: str, headers: dict[str, str], signature: str
) -> None:
    signed = {"host": "example.amazonaws.com", "x-amz-date": STAMP, **headers}
    given = Signer("us-east-1", "service").authorization(EXAMPLE, method, HOST + path, signed, b"")
    names = ";".join(sorted(signed))
    scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    assert given == f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"


def test_the_example_of_the_documentation() -> None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html, IAM's ListUsers."""
    url = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"
    kind = "application/x-www-form-urlencoded; charset=utf-8"
    signed = {"host": "iam.amazonaws.com", "x-amz-date": STAMP, "content-type": kind}
    request = canonical_request("GET", url, signed, sha256(b"").hexdigest())
    assert (
        sha256(request.encode()).hexdigest()
        == "f536975d06c0309214f805bb90ccff089219ecd68b2577efef23edd43b7e1a59"
    )
    headers = dict(Signer("us-east-1", "iam").headers(EXAMPLE, "GET", url, b"", at=AT, content_type=kind))
    assert headers["x-amz-date"] == STAMP
    assert headers["authorization"].endswith(
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


def test_a_key_is_derived_anew_for_other_keys_and_days() -> None:
    signer = Signer("us-east-1", "service")

    def signed(keys: AwsKeys, at: float) -> str:
        return dict(signer.headers(keys, "GET", f"{HOST}/", b"", at=at))["authorization"]

    other = AwsKeys("AKIDEXAMPLE", "another")
    first = [signed(EXAMPLE, AT), signed(other, AT), signed(EXAMPLE, AT + 86_400), signed(EXAMPLE, AT)]
    assert len(set(first)) == 3
    assert first[0] == first[3]


def test_hosts_are_signed_as_they_are_sent() -> None:
    urls = (
        "https://a.example:443/x",
        "https://A.example:8443",
        "http://[::1]:80/",
        "http://127.0.0.1:8080/v1?a=b",
    )
    assert [host_of(url) for url in urls] == ["a.example", "a.example:8443", "[::1]", "127.0.0.1:8080"]


def test_nothing_of_a_key_is_shown() -> None:
    assert "wJalr" not in repr(EXAMPLE)
    assert "AKID" not in repr(EXAMPLE)


ORACLE = """
import datetime, json, sys
import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

answers = []
for case in json.load(sys.stdin):
    moment = datetime.datetime.fromtimestamp(case["at"], datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda remove_tzinfo=True, moment=moment: moment.replace(tzinfo=None)

    class Clock(datetime.datetime):
        @classmethod
        def utcnow(cls, moment=moment):
            return moment.replace(tzinfo=None)

        @classmethod
        def now(cls, tz=None, moment=moment):
            return moment

    class Module:
        datetime, timezone, timedelta = Clock, datetime.timezone, datetime.timedelta

    botocore.auth.datetime = Module
    request = AWSRequest(case["method"], case["url"], headers={"Content-Type": case["type"]}, data=case["body"].encode())
    credentials = Credentials(case["key"], case["secret"], case["token"] or None)
    botocore.auth.SigV4Auth(credentials, case["service"], case["region"]).add_auth(request)
    answers.append([request.headers["X-Amz-Date"], request.headers["Authorization"]])
print(json.dumps(answers))
"""


def cases(count: int) -> list[dict[str, Any]]:
    chance = random.Random(16)
    models = (
        "anthropic.claude-v2%3A1",
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.x",
        "a~b",
        "%C3%A9",
        "a b+c",
    )
    paths = ("/model/{}/converse", "/model/{}/invoke-with-response-stream", "/{}/", "//{}/./x/..", "/")
    queries = ("", "?b=2&a=1", "?a=%20&a=!&A=1", "?x", "?list-type=2&prefix=a%2Fb")
    found = []
    for _ in range(count):
        url = f"https://bedrock-runtime.us-east-1.amazonaws.com{chance.choice(('', ':443', ':8443'))}"
        url += chance.choice(paths).format(chance.choice(models).replace(" ", "%20")) + chance.choice(queries)
        found.append(
            {
                "method": chance.choice(("GET", "POST", "PUT")),
                "url": url,
                "body": chance.choice(("", "{}", '{"text": "é\\n"}', "x" * 5000)),
                "type": chance.choice(
                    ("application/json", "application/x-www-form-urlencoded; charset=utf-8", "a  b")
                ),
                "key": "AKIA" + "".join(chance.choices("ABCDEFGH234567", k=16)),
                "secret": "".join(chance.choices(LETTERS, k=40)),
                "token": chance.choice(("", "".join(chance.choices(LETTERS, k=300)))),
                "service": chance.choice(("bedrock", "sts")),
                "region": chance.choice(("us-east-1", "eu-central-1", "us-gov-west-1")),
                "at": chance.randrange(1_500_000_000, 1_900_000_000),
            }
        )
    return found


def test_botocore_signs_the_same() -> None:
    asked = cases(300)
    for case, (stamp, authorization) in zip(asked, ask("botocore", ORACLE, asked), strict=True):
        given = dict(
            Signer(case["region"], case["service"]).headers(
                AwsKeys(case["key"], case["secret"], case["token"]),
                case["method"],
                case["url"],
                case["body"].encode(),
                at=case["at"],
                content_type=case["type"],
            )
        )
        assert (
            stamp == given["x-amz-date"] == datetime.fromtimestamp(case["at"], UTC).strftime("%Y%m%dT%H%M%SZ")
        )
        assert given["authorization"] == authorization, case


EXAMPLE_OF_S3 = AwsKeys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "signature"),
    [
        (
            "GET", "/test.txt", {"range": "bytes=0-9"}, b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT", "/test%24file.text", {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
    ],
)  # fmt: skip
def test_the_examples_of_s3_have_their_signatures(
    method: str, path: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html"""
    signed = {
        "host": "examplebucket.s3.amazonaws.com", "x-amz-date": "20130524T000000Z",
        "x-amz-content-sha256": sha256(body).hexdigest(), **headers,
    }  # fmt: skip
    signer = Signer("us-east-1", "s3")
    found = signer.authorization(
        EXAMPLE_OF_S3, method, f"https://examplebucket.s3.amazonaws.com{path}", signed, body
    )
    assert found.endswith(f"Signature={signature}")


def test_the_path_of_s3_is_signed_as_it_is_sent() -> None:
    """A key may hold "//" and "..", which are no steps of a path there."""
    found = canonical_request(
        "PUT", "https://s3.example/b/a//../x%20y", {"host": "s3.example"}, "0", path=lambda path: path
    )
    assert found.splitlines()[1] == "/b/a//../x%20y"
