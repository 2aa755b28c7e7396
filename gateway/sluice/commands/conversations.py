"""`sluice conversations`: exports and deletes a tenant's conversations in a running gateway, by its admin
API."""

from typing import Any
from urllib.parse import urlencode

import click

from sluice.commands.admin_api import copied, fail, of_a_running_one, pages, wanted

NOT_DONE = {
    "unreadable": "messages that cannot be decrypted",
    "left": "messages of conversations that went on meanwhile, which are left",
    "failed": "conversations for which the store failed",
}
"""Descriptions of what is not encrypted with the first key, by field of the gateway's answer."""


@click.group()
def conversations() -> None:
    """Export and delete the conversations that the running gateway keeps of tenants and their users. The
    admin key is $SLUICE_ADMIN_KEY."""


@conversations.command()
@click.option(
    "--tenant", help="The tenant; its stored responses are exported, too. Default: conversations of all."
)
@click.option("--session", help="Only the conversation of this session of the tenant, and no responses.")
@click.option("--session-prefix", help="Only conversations whose session begins with this, and no responses.")
@of_a_running_one
def export(*, url: str | None, path: str | None, **which: str | None) -> None:
    """Print the messages, one JSON object per line."""
    # an option that is given but empty is sent, and refused: it must not mean all conversations
    query = {name: value for name, value in which.items() if value is not None}
    copied(url, path, f"/v1/admin/conversations/export?{urlencode(query)}")
    if query.keys() == {"tenant"}:
        tenant = query["tenant"]
        copied(url, path, f"/v1/admin/responses/export?{urlencode({'tenant': tenant})}")


@conversations.command()
@click.option("--tenant", required=True, help="Whose: conversations and kept responses.")
@click.option("--session", help="Only the conversation of this session.")
@click.option("--session-prefix", help="Only conversations whose session begins with this.")
@of_a_running_one
def delete(*, url: str | None, path: str | None, tenant: str, **which: str | None) -> None:
    """Delete all conversations of a tenant, or those of some of its sessions. This cannot be undone."""
    query = {"tenant": tenant} | {name: value for name, value in which.items() if value is not None}
    answer: Any = wanted(url, path, "DELETE", f"/v1/admin/conversations?{urlencode(query)}")
    click.echo(f"conversations deleted: {answer['deleted']}")
    if len(query) == 1:
        answer = wanted(url, path, "DELETE", f"/v1/admin/responses?{urlencode(query)}")
        click.echo(f"responses deleted: {answer['deleted']}")


@conversations.command()
@of_a_running_one
def reencrypt(*, url: str | None, path: str | None) -> None:
    """Encrypt all conversations with the first key, so that the other keys can be removed. It can be run
    again.

    The exit code is 1 if anything is left that is not encrypted with the first key.
    """
    total = {"conversations": 0, "messages": 0, "unreadable": 0, "left": 0, "failed": 0}
    for answer in pages(url, path, "POST", "/v1/admin/conversations/reencrypt", what="conversations"):
        total = {name: number + answer[name] for name, number in total.items()}
    click.echo(f"conversations looked at: {total['conversations']}")
    click.echo(f"messages encrypted anew: {total['messages']}")
    not_done = [f"{words}: {total[name]}" for name, words in NOT_DONE.items() if total[name]]
    if not_done:
        fail(*not_done, "keep the other keys, and run it again")
