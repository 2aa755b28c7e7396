"""The configuration as strict types with all defaults: one module for each part of the file, and here the
whole file. `sluice.config.loader` reads it. All other code imports the types from here.

Durations are seconds ("2s", "500ms", "1m" or a number), sizes are bytes ("64KiB" or a number), a rate is
"10/s", "500/min", "20000/h" or "1000000/day". Secrets come as ${VAR}, ${VAR:-default} or ${file:/path}.
Relative paths are relative to the working directory.
"""

from sluice.config.types.admin import Admin as Admin
from sluice.config.types.admin import AdminKey as AdminKey
from sluice.config.types.admin import Oidc as Oidc
from sluice.config.types.admin import OidcRoles as OidcRoles
from sluice.config.types.admin import Role as Role
from sluice.config.types.aliases import Alias as Alias
from sluice.config.types.aliases import Canary as Canary
from sluice.config.types.aliases import Hedge as Hedge
from sluice.config.types.aliases import History as History
from sluice.config.types.aliases import Interceptor as Interceptor
from sluice.config.types.aliases import Retry as Retry
from sluice.config.types.aliases import Shadow as Shadow
from sluice.config.types.aliases import Stage as Stage
from sluice.config.types.aliases import Strategy as Strategy
from sluice.config.types.aliases import Target as Target
from sluice.config.types.aliases import Tier as Tier
from sluice.config.types.aliases import covering as covering
from sluice.config.types.aliases import targets_of as targets_of
from sluice.config.types.callers import BrowserTokens as BrowserTokens
from sluice.config.types.callers import Claims as Claims
from sluice.config.types.callers import Grant as Grant
from sluice.config.types.callers import Issuer as Issuer
from sluice.config.types.callers import Key as Key
from sluice.config.types.callers import NamedGrant as NamedGrant
from sluice.config.types.limits import Budget as Budget
from sluice.config.types.limits import CallLimits as CallLimits
from sluice.config.types.limits import EndUsers as EndUsers
from sluice.config.types.limits import KeyLimits as KeyLimits
from sluice.config.types.limits import Limit as Limit
from sluice.config.types.limits import Limits as Limits
from sluice.config.types.limits import Queue as Queue
from sluice.config.types.limits import Team as Team
from sluice.config.types.limits import Tenant as Tenant
from sluice.config.types.limits import windows_of as windows_of
from sluice.config.types.records import RecordBucket as RecordBucket
from sluice.config.types.records import RecordFile as RecordFile
from sluice.config.types.records import RecordKafka as RecordKafka
from sluice.config.types.records import RecordKafkaSasl as RecordKafkaSasl
from sluice.config.types.records import RecordKafkaTls as RecordKafkaTls
from sluice.config.types.records import RecordOtlp as RecordOtlp
from sluice.config.types.records import Records as Records
from sluice.config.types.records import RecordWebhook as RecordWebhook
from sluice.config.types.server import Server as Server
from sluice.config.types.server import ServerTls as ServerTls
from sluice.config.types.storage import Encryption
from sluice.config.types.storage import Responses as Responses
from sluice.config.types.storage import Retention as Retention
from sluice.config.types.telemetry import Log as Log
from sluice.config.types.telemetry import Metrics
from sluice.config.types.telemetry import MetricsPush as MetricsPush
from sluice.config.types.telemetry import Tracing as Tracing
from sluice.config.types.upstreams import COMPUTED as COMPUTED
from sluice.config.types.upstreams import Breaker as Breaker
from sluice.config.types.upstreams import Credential as Credential
from sluice.config.types.upstreams import Picker as Picker
from sluice.config.types.upstreams import Pods as Pods
from sluice.config.types.upstreams import Probe as Probe
from sluice.config.types.upstreams import Timeouts as Timeouts
from sluice.config.types.upstreams import Upstream as Upstream
from sluice.config.types.upstreams import UpstreamTls as UpstreamTls
from sluice.config.types.upstreams import credentials_of as credentials_of
from sluice.config.types.upstreams import heeds_limits as heeds_limits
from sluice.config.types.usage import MAX_PRICE as MAX_PRICE
from sluice.config.types.usage import LongPrompt as LongPrompt
from sluice.config.types.usage import Models
from sluice.config.types.usage import Price as Price
from sluice.config.types.usage import Prices as Prices
from sluice.config.types.usage import Rates as Rates
from sluice.config.types.usage import Tag as Tag
from sluice.config.types.usage import UsageReport as UsageReport
from sluice.config.types.values import AliasName, Section
from sluice.config.types.values import Content as Content
from sluice.config.types.values import Name as Name
from sluice.config.units import Bytes as Bytes
from sluice.config.units import HeaderValue as HeaderValue
from sluice.config.units import Rate as Rate
from sluice.config.units import Seconds as Seconds
from sluice.config.units import Secret as Secret


class Config(Section, frozen=True):
    """The whole file: where requests are sent (`upstreams`), the model names that callers use (`aliases`),
    and who may call (`keys`, `jwt`)."""

    upstreams: dict[Name, Upstream]  # provider accounts and servers, by name
    aliases: dict[AliasName, Alias]  # model names that callers use, and their targets
    keys: tuple[Key, ...] = ()  # keys of callers
    jwt: tuple[Issuer, ...] = ()  # issuers whose JWTs are accepted
    tokens: BrowserTokens | None = None  # short-lived tokens for web pages; null: none
    tenants: dict[Name, Tenant] = {}  # limits of all keys of a tenant together
    teams: dict[Name, Team] = {}  # limits of all tenants of a team together
    server: Server = Server()  # listeners, and bounds of requests
    limits: Limits = Limits()  # where limits are counted, and limits of all callers together
    state: Secret = Secret("memory")  # conversations: memory, sqlite:PATH, a redis:// or a postgresql:// URL
    retention: Retention = Retention()  # how long conversations are kept
    responses: Responses = Responses()  # where answers of /v1/responses are stored
    encryption: Encryption = Encryption()  # encryption of stored conversations and responses
    resume: Secret = Secret("memory")  # resumable streams: "memory" or a redis:// / rediss:// / unix:// URL
    admin: Admin = Admin()  # access to the admin API and its pages
    prices: Prices = Prices()  # what tokens cost
    usage: UsageReport = UsageReport()  # the dimensions that usage is counted by
    models: Models = Models()  # the table of models
    log: Log = Log()  # what is logged, and how
    metrics: Metrics = Metrics()  # labels of metrics, and where metrics are pushed
    tracing: Tracing | None = None  # where traces are sent; null: nowhere
    records: tuple[Records, ...] = ()  # sinks of call records
