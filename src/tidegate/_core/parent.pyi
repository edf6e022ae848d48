def end_with_parent(parent: int, seconds: int) -> bool:
    """Be killed so many seconds after the parent, whose process id this is, has ended. False: the system cannot."""
