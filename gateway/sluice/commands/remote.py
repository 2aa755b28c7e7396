"""Commands that use a running gateway's admin API: keys, usage, targets, calls. The admin key is
$SLUICE_ADMIN_KEY."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import click

from sluice.commands.admin_api import of_a_running_one, pages, printable, show, wanted
from sluice.config.resources import RESOURCES

as_json = click.option("--json", "as_json", is_flag=True, help="The whole answer, as JSON.")


RATES = tuple(resource.name for resource in RESOURCES)


def _rates(command: Callable[..., None]) -> Callable[..., None]:
    """Adds an option for each resource that has a rate limit."""
    for resource in reversed(RESOURCES):
        help_text = f"{resource.unit[0].upper()}{resource.unit[1:]}, such as {resource.example}."
        command = click.option(f"--{resource.name}", metavar="RATE", help=help_text)(command)
    return command


def _key(key_id: str, action: str = "") -> str:
    return f"/admin/keys/{quote(key_id, safe='')}{action}"


# keys


@click.command("list")
@of_a_running_one
@as_json
def list_keys(*, url: str | None, path: str | None, as_json: bool) -> None:
    """List all keys of the running gateway."""
    found: list[dict[str, Any]] = []
    for page in pages(url, path, "GET", "/admin/keys", what="keys", limit=200):
        found += page["keys"]
    rows = [
        [key["id"], key["tenant"], key["source"], key["enabled"], key["aliases"], key["expires"]]
        for key in found
    ]
    show(found, rows, ("ID", "TENANT", "SOURCE", "ENABLED", "ALIASES", "EXPIRES"), as_json=as_json)


@click.command("make")
@click.argument("key_id", metavar="ID")
@click.option("--tenant", help="The tenant of the key. Default: its id.")
@click.option("--alias", "aliases", multiple=True, help="One that it may use; repeat it. Default: all.")
@click.option("--default-alias", help="The alias of requests that name no model.")
@_rates
@click.option("--streams", type=click.IntRange(min=1), help="Calls at a time.")
@click.option("--budget-day", type=float, metavar="USD")
@click.option("--budget-month", type=float, metavar="USD")
@click.option("--origin", "origins", multiple=True, help="A page's origin that may use it; repeat it.")
@click.option("--expires", help="RFC 3339.")
@of_a_running_one
@as_json
def make_key(*, url: str | None, path: str | None, key_id: str, as_json: bool, **given: Any) -> None:
    """Make a key in the running gateway, and print it, this once."""
    budget = {
        name: given[f"budget_{name}"] for name in ("day", "month") if given[f"budget_{name}"] is not None
    }
    limits = {name: {"rate": given[name]} for name in RATES if given[name]}
    limits |= {"streams": given["streams"]} if given["streams"] else {}
    limits |= {"budget": budget} if budget else {}
    body = {name: given[name] for name in ("tenant", "default_alias", "expires") if given[name]}
    body |= {name: [*given[name]] for name in ("aliases", "origins") if given[name]}
    made = wanted(url, path, "POST", "/admin/keys", {"id": key_id, "limits": limits, **body})
    _show_key(made, as_json=as_json)


def _show_key(made: Any, *, as_json: bool) -> None:
    if as_json:
        show(made, (), (), as_json=True)
    else:
        click.echo(made["key"])


@click.command("show")
@click.argument("key_id", metavar="ID")
@of_a_running_one
def show_key(*, url: str | None, path: str | None, key_id: str) -> None:
    """Print what is known of a key, as JSON."""
    show(wanted(url, path, "GET", _key(key_id)), (), (), as_json=True)


@click.command("rotate")
@click.argument("key_id", metavar="ID")
@click.option("--overlap", help="How long the old key stays valid, such as 10m.")
@of_a_running_one
@as_json
def rotate_key(*, url: str | None, path: str | None, key_id: str, overlap: str | None, as_json: bool) -> None:
    """Replace a key by a new one, and print the new key, this once."""
    body = {"overlap": overlap} if overlap else {}
    _show_key(wanted(url, path, "POST", _key(key_id, "/rotate"), body), as_json=as_json)


def _switch(verb: str, text: str) -> click.Command:
    @of_a_running_one
    def switch(url: str | None, path: str | None, key_id: str) -> None:
        if verb == "delete":
            wanted(url, path, "DELETE", _key(key_id))
        else:
            wanted(url, path, "POST", _key(key_id, f"/{verb}"))
        click.echo(f"{key_id}: {verb}d")

    return click.command(verb, help=text)(click.argument("key_id", metavar="ID")(switch))


KEYS = (
    list_keys,
    make_key,
    show_key,
    rotate_key,
    _switch("disable", "Refuse a key from now on."),
    _switch("enable", "Accept a disabled key again."),
    _switch("delete", "Delete a key permanently."),
)


# usage, calls, targets


@click.command()
@click.option("--from", "first", metavar="DAY", help="The first day. Default: the first of the month.")
@click.option("--to", "last", metavar="DAY", help="The last day. Default: today.")
@click.option(
    "--by",
    default="day,model",
    show_default=True,
    help="Any of day, hour, key, tenant, alias, model, tag:NAME.",
)
@of_a_running_one
@as_json
def usage(
    *, url: str | None, path: str | None, first: str | None, last: str | None, by: str, as_json: bool
) -> None:
    """Print the usage of the running gateway: calls, tokens, cost."""
    query = {name: value for name, value in (("from", first), ("to", last)) if value} | {"by": by}
    answer = wanted(url, path, "GET", f"/admin/usage?{urlencode(query)}")
    rows = [[*(row[name] for name in answer["by"]), *_usage_figures(row)] for row in answer["rows"]]
    if answer["by"]:
        blank = [""] * (len(answer["by"]) - 1)
        rows.append(["total", *blank, *_usage_figures(answer["total"])])
    titles = [name.upper() for name in (*answer["by"], "calls", "errors", "input", "output", "usd")]
    show(answer, rows, titles, as_json=as_json)


def _usage_figures(row: dict[str, Any]) -> list[object]:
    counts = [row[name] for name in ("requests", "errors", "input_tokens", "output_tokens")]
    cost, unpriced = row["cost_usd"], row.get("unpriced_tokens", 0)
    if cost is None:
        return [*counts, "no price"]
    return [*counts, f"{cost:.6f} and {unpriced} tokens without a price" if unpriced else cost]


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True)
@click.option("--alias")
@click.option("--key", "key_id", metavar="ID")
@click.option("--errors", is_flag=True, help="Only those that ended in an error.")
@click.option(
    "--content", is_flag=True, help="With their texts, where log.content allows any; 20 calls at most."
)
@of_a_running_one
@as_json
def calls(
    *,
    url: str | None,
    path: str | None,
    limit: int,
    alias: str | None,
    key_id: str | None,
    errors: bool,
    content: bool,
    as_json: bool,
) -> None:
    """Print the last calls of the running gateway (with admin.ui), the newest first."""
    from datetime import UTC, datetime

    wished = (
        ("alias", alias),
        ("key", key_id),
        ("error", "*" if errors else None),
        ("content", "true" if content else None),
    )
    query = {"limit": str(limit)} | {name: value for name, value in wished if value}
    answer = wanted(url, path, "GET", f"/admin/calls?{urlencode(query)}")
    names = (
        "alias",
        "target",
        "key",
        "status",
        "end",
        "error",
        "ttft",
        "duration",
        "tokens_in",
        "tokens_out",
        "cost_usd",
    )
    rows = [
        [datetime.fromtimestamp(call["at"], UTC).strftime("%H:%M:%S"), *(call.get(name) for name in names)]
        for call in answer["calls"]
    ]
    show(answer, rows, ("UTC", *(name.upper() for name in names)), as_json=as_json)
    if content and not as_json:
        for row, call in zip(rows, answer["calls"], strict=True):
            _show_texts(f"{row[0]}  {call['request_id']}", call)


NO_CONTENT = {"none": "no texts: log.content is none for it", "forgotten": "its texts are forgotten"}


def _show_texts(title: str, call: dict[str, Any]) -> None:
    click.echo(f"\n{printable(title)}")
    if call["content"] is None:
        click.echo(f"  {NO_CONTENT.get(call['no_content'], call['no_content'])}")
        return
    prompt, answer = call["content"]["prompt"], call["content"]["answer"]
    texts = [(one["role"], one["content"]) for one in prompt.get("messages", ())]
    texts = texts or [("prompt", prompt.get("digest", ""))]
    for who, text in (*texts, ("answer", answer.get("text", answer.get("digest", "")))):
        click.echo("\n    ".join(printable(f"  {who}: {text}").split("\n")))


@click.group(invoke_without_command=True)
@of_a_running_one
@as_json
@click.pass_context
def targets(context: click.Context, *, url: str | None, path: str | None, as_json: bool) -> None:
    """List the targets of the running gateway, or disable and enable one."""
    if context.invoked_subcommand is not None:
        context.obj = (url, path)
        return
    answer = wanted(url, path, "GET", "/admin/targets")
    names = ("state", "breaker", "in_flight", "first_token_seconds", "last_error", "aliases")
    rows = [
        [f"{one['upstream']}/{one['model']}", *(one.get(name) for name in names)] for one in answer["targets"]
    ]
    show(
        answer,
        rows,
        ("TARGET", "STATE", "BREAKER", "IN FLIGHT", "FIRST TOKEN", "LAST ERROR", "ALIASES"),
        as_json=as_json,
    )


def _control(verb: str, text: str) -> click.Command:
    @of_a_running_one
    @click.pass_context
    def control(context: click.Context, *, url: str | None, path: str | None, target: str) -> None:
        upstream, slash, model = target.partition("/")
        if not slash:
            raise click.UsageError("TARGET is UPSTREAM/MODEL, as `sluice targets` lists it")
        at = f"/admin/targets/{quote(upstream, safe='')}/{quote(model)}/{verb}"
        of_group = context.obj  # options of the group count, too: `sluice targets --url … disable`
        answer = wanted(url or of_group[0], path or of_group[1], "POST", at)
        click.echo(f"{target}: {answer['state']}")

    return click.command(verb, help=text)(click.argument("target", metavar="TARGET")(control))


targets.add_command(_control("disable", "Send it no more requests."))
targets.add_command(_control("drain", "Send it no new requests; running ones may finish."))
targets.add_command(_control("enable", "Send it requests again."))

COMMANDS = (usage, calls, targets)
