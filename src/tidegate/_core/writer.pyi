from .messages import MessageChannel

slow_connections: set[MessageChannel]
