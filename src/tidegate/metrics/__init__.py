"""The metrics of a daemon, for Prometheus.

    catalog        every metric once
    collect        from a reading to prometheus_client's families
    expose         /metrics
    derived        samples that follow from a snapshot
    procfs         samples from the system
    application    the application's own metrics
    value_file     a file of prometheus_client that a full disk does not harm

Nothing is imported here, so that a process that is not scraped does not load prometheus_client.
What must not live here: frames, connections, HTTP.
"""
