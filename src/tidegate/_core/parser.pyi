from .inbox import Inbox

class Parser(Inbox):
    _extended: bool
