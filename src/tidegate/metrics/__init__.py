"""What is measured of a daemon, as Prometheus asks for it.

    catalog        every metric once
    collect        from a reading to prometheus_client's families
    expose         /metrics
    derived        samples that follow from a snapshot
    procfs         samples that the system tells
    application    samples of the application's own
    value_file     a file of prometheus_client's that is never full

Nothing is imported here, so that a program that is not scraped does not load prometheus_client.
What must not live here: frames, connections, HTTP.
"""
