"""The settings of the daemon: declared once, read from a command line, the environment and a file.

    schema     each setting: type, default, check, help
    setting    how one is declared
    consistency    whether settings fit together
    types      how values are written: numbers, sizes, times
    bind       addresses to listen on: Tcp, Unix, Fd, Systemd
    errors     ConfigError
    sources    from texts to a Config, and where each value came from
    prerequisites    whether a Config can run on this machine

What must not live here: any use of a setting.
"""
