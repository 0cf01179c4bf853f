"""A client of onesource, the chat service that does not forget.

with Client("http://localhost:8001") as client:
    conversation = client.conversation()
    print(conversation.ask("What is Redis?"))
    for piece in conversation.stream("What did I just ask about?"):
        print(piece, end="")
"""

from onesource_client.aio import AsyncClient, AsyncConversation, AsyncStream
from onesource_client.client import Client, Conversation, Stream
from onesource_client.errors import OnesourceError
from onesource_client.results import Answer, History, Message
from onesource_client.retries import Retries

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncConversation",
    "AsyncStream",
    "Client",
    "Conversation",
    "History",
    "Message",
    "OnesourceError",
    "Retries",
    "Stream",
]
__version__ = "0.1.0"
