"""Django Channels: the chat of its tutorial, in one file, with groups over all workers and no Redis."""

import json

import django
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path, re_path

from tidegate import App, Channel

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    CHANNEL_LAYERS={"default": {"BACKEND": "tidegate.django.ChannelLayer"}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "channels"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of this example",
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)
django.setup()

PAGE = """<!doctype html>
<title>Chat Room</title>
<textarea id="chat-log" cols="100" rows="20"></textarea><br>
<input id="chat-message-input" type="text" size="100"><br>
<input id="chat-message-submit" type="button" value="Send">
<script>
    const chatSocket = new WebSocket(`ws://${location.host}/ws/chat/ROOM/`);
    const input = document.querySelector("#chat-message-input");
    chatSocket.onmessage = (event) => {
        document.querySelector("#chat-log").value += JSON.parse(event.data).message + "\\n";
    };
    document.querySelector("#chat-message-submit").onclick = () => {
        chatSocket.send(JSON.stringify({message: input.value}));
        input.value = "";
    };
</script>
"""


def room(request, room_name):
    return HttpResponse(PAGE.replace("ROOM", room_name))


class ChatConsumer(AsyncWebsocketConsumer):
    async def connect(self):
        self.room_name = self.scope["url_route"]["kwargs"]["room_name"]
        self.room_group_name = f"chat_{self.room_name}"
        await self.channel_layer.group_add(self.room_group_name, self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.room_group_name, self.channel_name)

    async def receive(self, text_data):
        message = json.loads(text_data)["message"]
        await self.channel_layer.group_send(self.room_group_name, {"type": "chat.message", "message": message})

    async def chat_message(self, event):
        await self.send(text_data=json.dumps({"message": event["message"]}))


urlpatterns = [path("chat/<slug:room_name>/", room)]
sockets = URLRouter([re_path(r"ws/chat/(?P<room_name>\w+)/$", ChatConsumer.as_asgi())])

application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))}
)
app = App(application, channels={"django:": Channel()})
