"""The admin process: an HTTP server of its own that reads the scoreboard, so that a busy worker cannot hide.

main is its life, answers its paths; health, status and live are what they say, feed tells the last to who listens.
What must not live here: anything that changes the daemon; what is measured (metrics).
"""
