"""The hub: the process of local:// that all workers are linked to, and that has the journal.

    main        its life
    records     what it counts
    requests    what frames other than a publish ask for

What must not live here: the path of a message (_core/switch.pyx, _core/journal.pyx), frames (bus/link.py), engines of
the bus.
"""
