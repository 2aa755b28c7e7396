"""Stands in the way of `rich`, which the tests' other programs need: structlog imports it wherever it is
installed, and that is a third of what starting a gateway costs. Nobody gets it by installing the gateway."""

raise ImportError("the gateway alone has no rich")
