"""Replays traffic against modelled upstreams, through the gateway's own routing, limits, queues and breakers,
in virtual time.

clock       an asyncio event loop whose time jumps to the next timer
scenario    the file that says what is simulated: arrivals, clients, upstreams, what a replica can do
traces      recorded arrivals: CSV, JSON lines, the gateway's own call records
arrivals    generated ones: even, Poisson, bursts, by the time of day
upstreams   what a modelled upstream answers, and when
transport   brings those answers to attempts, in place of HTTP
replica     the real pipeline of one gateway process
driver      sends the calls; measured, report, plot: what became of them

`sluice simulate` alone imports it.
"""
