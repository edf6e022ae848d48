from .writer import Writer

class Inbox(Writer):
    _streaming: bool
