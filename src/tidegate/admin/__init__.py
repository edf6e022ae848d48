"""The admin process: an HTTP server of its own that reads the scoreboard, so that a busy worker cannot hide.

main is its life, routes its paths; health and status are answers, live and events what feed sends to who listens.
What must not live here: anything that changes the daemon; what is measured (metrics).
"""
