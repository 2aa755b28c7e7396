"""The backends, kinds of credentials and interceptors that are part of Sluice, and what they share."""
