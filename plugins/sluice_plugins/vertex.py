"""Projects, locations and addresses of Google's Vertex AI. Pure functions."""

import re

_LOCATION = re.compile(r"[a-z0-9-]{1,40}\Z").match
_PROJECT = re.compile(r"[A-Za-z0-9.:_-]{1,100}\Z").match


def check_place(project: str, location: str) -> None:
    """Raise ValueError for an invalid project or location; the project may be missing ("")."""
    if not _LOCATION(location):
        raise ValueError("location must be a region of Vertex AI such as europe-west4, or us, eu, global")
    if project and not _PROJECT(project):
        raise ValueError("project must be the id or number of a project of Google Cloud")


def vertex_address(location: str) -> str:
    """Returns the base URL of the API:
    https://cloud.google.com/vertex-ai/generative-ai/docs/learn/locations"""
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"
