"""What one alias learns of a target, all aliases know."""

from tests.e2e.gateways import HEAD, gateway

CONFIG = f"""{HEAD}
upstreams: {{echo: {{backend: echo}}}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: echo}}, {{upstream: echo, model: other}}]]}}
  also: {{tiers: [[{{upstream: echo, model: echo}}]]}}
"""


async def test_a_target_has_one_health_over_all_aliases() -> None:
    async with gateway(CONFIG) as g:
        routes = g.runtime.routes
        echo, other = routes["chat"].targets
        [also] = routes["also"].targets
        assert also.health is echo.health
        assert also.load is echo.load
        assert other.health is not echo.health
