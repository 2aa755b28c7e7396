"""Commands of `sluice` that `sluice.cli` does not contain: init, chat, import, models, simulate, and those
that call the admin API of a running gateway (keys, usage …)."""
