"""Metrics: catalog (every metric once), facts (what the supervisor knows), collect (a read), expose (the text),
users (what an application counts).

Nothing is imported here, so that a program that is not scraped does not load prometheus_client.
What must not live here: frames, connections, HTTP.
"""
