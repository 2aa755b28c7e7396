"""One gateway for the commands and the code of all pages."""

from collections.abc import Iterator

import pytest

from tests.e2e.gateway_process import DIGEST, GatewayProcess, serving

GATEWAY = f"""
upstreams: {{ echo: {{ backend: echo }} }}
aliases:
  echo: {{ tiers: [[{{ upstream: echo, model: echo }}]] }}
  chat: {{ tiers: [[{{ upstream: echo, model: echo }}]] }}
  gpt-5: {{ tiers: [[{{ upstream: echo, model: gpt-5 }}]] }}
keys:
  - id: shop
    digest: "{DIGEST}"
    tenant: acme
    default_alias: echo
    origins: [https://shop.example.com]
    limits: {{ requests: {{ rate: 1000/s }}, budget: {{ month: 100 }} }}
tokens: {{ secret: page-secret-page-secret-page-secret }}
usage: {{ tags: {{ project: {{ header: x-project }}, feature: {{ metadata: feature }} }} }}
responses: {{ store: memory }}
admin: {{ digest: "{DIGEST}", ui: true }}
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with serving(GATEWAY) as running:
        yield running
