"""Commands of `sluice` beside those of `sluice.cli`: init, chat, import, and what asks a running gateway for
keys, usage …"""
