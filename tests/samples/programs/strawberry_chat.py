"""strawberry: a subscription of GraphQL (graphql-transport-ws) to a room, and a mutation that speaks there."""

from collections.abc import AsyncGenerator

import strawberry
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

import tidegate


@strawberry.type
class Said:
    text: str
    missed: bool = False


@strawberry.type
class Query:
    @strawberry.field
    async def listeners(self, room: str) -> int:
        return await tidegate.members(f"room:{room}")


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def say(self, room: str, text: str) -> bool:
        await tidegate.publish(f"room:{room}", text)
        return True


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def room(self, name: str, last: int = 0) -> AsyncGenerator[Said, None]:
        async with tidegate.subscribe(f"room:{name}", last=last) as messages:
            async for message in messages:
                if message.gap is None:
                    yield Said(text=message.data)
                else:
                    yield Said(text="", missed=True)


schema = strawberry.Schema(Query, Mutation, Subscription)
graphql = GraphQL(schema, subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL])
app = tidegate.App(graphql, channels={"room:": tidegate.Channel(history=100)})
