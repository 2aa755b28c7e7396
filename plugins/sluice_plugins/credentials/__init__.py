"""Kinds of credentials (`sluice.backends.credentials`): one file and one entry point each, and what they share."""
