"""What tests share: daemons, raw peers, proxies, limits of time, and how a run is spread over processes.

What must not live here: test cases; what a single folder of tests uses alone.
"""
