"""What is compared: the driver alone (the floor), onesource, and the histories of other libraries.

Each does the same work in `turn`: it reads the conversation, decodes its messages, and adds one question with its
answer. Those that can keep at most the newest `window` messages; the others are filled anew every few turns, so that
they do not grow while they are measured. Everything is imported when it is first asked for: a process that measures
one contender need not load the others.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from benchmarks.messages import Pair, lines

TTL = 2_592_000


class Contender(ABC):
    """One way to keep conversations."""

    trims = True
    """Whether it keeps at most the window by itself."""
    window = 40

    @abstractmethod
    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        """Make these the conversation, whatever was there."""

    @abstractmethod
    def turn(self, session: str, pair: Pair) -> Any:
        """Read the conversation and add the pair; return something to await where the library is asynchronous."""

    @abstractmethod
    def contents(self, session: str) -> list[str]:
        """Return what is stored, as texts in order."""


class InRedis(Contender):
    @cached_property
    def client(self) -> Any:
        """redis-py with its own settings but for the older protocol, which needs one round trip less to connect."""
        from redis import Redis

        return Redis.from_url(os.environ["REDIS_URL"], protocol=2, max_connections=1000)


class Floor(InRedis):
    """GET, one decoding by orjson, and one script that appends, trims and sets the TTL: the least there is to do."""

    SCRIPT = """
local value = redis.call('GET', KEYS[1])
if ARGV[2] == '1' then
  local first = string.find(value, '\\n', 1, true)
  local second = string.find(value, '\\n', first + 1, true)
  value = string.sub(value, second + 1)
end
return redis.call('SET', KEYS[1], value .. ARGV[1], 'EX', 2592000) and 1
"""

    def __init__(self) -> None:
        self._growing: set[str] = set()

    @cached_property
    def script(self) -> Any:
        return self.client.register_script(self.SCRIPT)

    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        self.client.set(f"floor:{session}", b"".join(map(lines, pairs)), ex=TTL)
        (self._growing.discard if len(pairs) * 2 >= self.window else self._growing.add)(session)

    def turn(self, session: str, pair: Pair) -> None:
        value = self.client.get(f"floor:{session}")
        messages = loads(b"[%s]" % b",".join(value[:-1].split(b"\n")))
        assert messages is not None
        self.append(session, pair)

    def append(self, session: str, pair: Pair) -> None:
        self.script([f"floor:{session}"], [lines(pair), "0" if session in self._growing else "1"])

    def contents(self, session: str) -> list[str]:
        return [json.loads(line)["content"] for line in self.client.get(f"floor:{session}").splitlines()]


def loads(value: bytes) -> Any:
    import orjson

    return orjson.loads(value)


class OnesourceStore(Contender):
    """onesource's store alone: no policy, no merge, no metrics of a turn."""

    alias = "redis"

    @cached_property
    def store(self) -> Any:
        from conversations.stores import limits, store

        found = store(self.alias)
        found.limits = limits()
        return found

    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        self.empty(session)
        turns = []
        for pair in pairs:
            turns.append(new_turn(pair, turns[-1].answer.at if turns else None))
        self.store.append(session, None, turns)

    def empty(self, session: str) -> None:
        from django.core.cache import caches

        caches["conversations"].delete(session)

    def turn(self, session: str, pair: Pair) -> None:
        history = self.store.load(session)
        assert [message.content for message in history]
        self.store.append_after(session, history, new_turn(pair, history.last_at))

    def append(self, session: str, pair: Pair) -> None:
        from conversations.turns import History

        history = self.store.load(session) or History()
        self.store.append_after(session, history, new_turn(pair, history.last_at))

    def contents(self, session: str) -> list[str]:
        return [message.content for message in self.store.load(session)]


def new_turn(pair: Pair, seen: str | None) -> Any:
    from conversations.clock import now
    from conversations.turns import make_turn

    return make_turn(*pair, seen, now(), now())


class Onesource(OnesourceStore):
    """onesource's history as the service uses it: policy, breakers, journal, metrics, both stores."""

    def turn(self, session: str, pair: Pair) -> None:
        from conversations import deadline, history

        with deadline.begun():
            reading = history.read(session)
            assert [message.content for message in reading.history]
            written = history.append(session, new_turn(pair, reading.seen), reading)
        assert written.stored_in == history.routing().wanted, written


class OnesourceChat(OnesourceStore):
    """onesource's whole turn: the above, the built-in answerer, the log."""

    def turn(self, session: str, pair: Pair) -> None:
        from conversations import chat, deadline, history

        with deadline.begun():
            answer = chat.ask(chat.Question(pair[0], session_id=session))
        assert answer.stored_in == history.routing().wanted and answer.context == "full", answer


class OpenAIAgents(InRedis):
    """openai-agents: RedisSession, which is asynchronous; reads the newest of a list that grows."""

    trims = False

    def __init__(self) -> None:
        self._sessions: dict[str, Any] = {}

    @cached_property
    def loop(self) -> Any:
        """The event loop that its client belongs to."""
        import asyncio

        return asyncio.new_event_loop()

    @cached_property
    def asynchronous(self) -> Any:
        from redis.asyncio import Redis

        return Redis.from_url(os.environ["REDIS_URL"], protocol=2)

    def session(self, session: str) -> Any:
        if session not in self._sessions:
            from agents.extensions.memory.redis_session import RedisSession

            self._sessions[session] = RedisSession(session, redis_client=self.asynchronous, ttl=TTL)
        return self._sessions[session]

    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        one = self.session(session)
        self.loop.run_until_complete(one.clear_session())
        self.loop.run_until_complete(one.add_items([item for pair in pairs for item in self.items(pair)]))

    @staticmethod
    def items(pair: Pair) -> list[Any]:
        return [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]

    async def turn(self, session: str, pair: Pair) -> None:
        one = self.session(session)
        assert await one.get_items(limit=self.window) is not None
        await one.add_items(self.items(pair))

    def contents(self, session: str) -> list[str]:
        return [item["content"] for item in self.loop.run_until_complete(self.session(session).get_items())]


class LlamaIndex(InRedis):
    """llama-index-storage-chat-store-redis: RedisChatStore; the list grows."""

    trims = False

    @cached_property
    def chats(self) -> Any:
        from llama_index.storage.chat_store.redis import RedisChatStore
        from redis.asyncio import Redis

        unused = Redis.from_url(os.environ["REDIS_URL"])
        return RedisChatStore(redis_client=self.client, aredis_client=unused, ttl=TTL)

    def messages(self, pair: Pair) -> list[Any]:
        from llama_index.core.llms import ChatMessage, MessageRole

        roles = (MessageRole.USER, MessageRole.ASSISTANT)
        return [ChatMessage(role=role, content=text) for role, text in zip(roles, pair, strict=True)]

    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        pipeline = self.client.pipeline(transaction=False).delete(f"llama:{session}")
        pipeline.rpush(f"llama:{session}", *[m.model_dump_json() for pair in pairs for m in self.messages(pair)])
        pipeline.expire(f"llama:{session}", TTL).execute()

    def turn(self, session: str, pair: Pair) -> None:
        assert self.chats.get_messages(f"llama:{session}") is not None
        for message in self.messages(pair):
            self.chats.add_message(f"llama:{session}", message)

    def contents(self, session: str) -> list[str]:
        return [message.content for message in self.chats.get_messages(f"llama:{session}")]


class LangChain(InRedis):
    """langchain-community: RedisChatMessageHistory; the list grows."""

    trims = False

    def __init__(self) -> None:
        self._histories: dict[str, Any] = {}

    def history(self, session: str) -> Any:
        if session not in self._histories:
            from langchain_community.chat_message_histories import RedisChatMessageHistory

            self._histories[session] = RedisChatMessageHistory(session, os.environ["REDIS_URL"], ttl=TTL)
        return self._histories[session]

    def messages(self, pair: Pair) -> list[Any]:
        from langchain_core.messages import AIMessage, HumanMessage

        return [HumanMessage(pair[0]), AIMessage(pair[1])]

    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        from langchain_core.messages import message_to_dict

        key = self.history(session).key
        pipeline = self.client.pipeline(transaction=False).delete(key)
        pipeline.lpush(key, *[json.dumps(message_to_dict(m)) for pair in pairs for m in self.messages(pair)])
        pipeline.expire(key, TTL).execute()

    def turn(self, session: str, pair: Pair) -> None:
        history = self.history(session)
        assert history.messages is not None
        history.add_messages(self.messages(pair))

    def contents(self, session: str) -> list[str]:
        return [message.content for message in self.history(session).messages]


class Agno(InRedis):
    """agno: RedisDb, a document for each session and one for each run; reads the newest runs of those that grow."""

    trims = False

    @cached_property
    def database(self) -> Any:
        from agno.db.redis import RedisDb
        from redis import Redis

        client = Redis.from_url(os.environ["REDIS_URL"], protocol=2, decode_responses=True)
        return RedisDb(redis_client=client, expire=TTL)

    def run(self, session: str, pair: Pair) -> Any:
        from uuid import uuid4

        from agno.models.message import Message
        from agno.run.agent import RunOutput

        messages = [Message(role="user", content=pair[0]), Message(role="assistant", content=pair[1])]
        return RunOutput(run_id=uuid4().hex, session_id=session, agent_id="agent", messages=messages)

    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        from agno.session.agent import AgentSession

        self.database._delete_session_runs(session)
        self.database.upsert_session(AgentSession(session_id=session, agent_id="agent"))
        for index, pair in enumerate(pairs):
            self.database.upsert_run(self.run(session, pair), session, run_index=index)

    def turn(self, session: str, pair: Pair) -> None:
        from agno.db.base import SessionType

        found = self.database.get_session(session, SessionType.AGENT, runs_limit=self.window // 2)
        run = self.run(session, pair)
        index = len(found.runs)
        found.upsert_run(run)
        self.database.upsert_session(found)
        self.database.upsert_run(run, session, run_index=index)

    def contents(self, session: str) -> list[str]:
        from agno.db.base import SessionType

        runs = self.database.get_session(session, SessionType.AGENT).runs
        return [message.content for run in runs for message in run.messages]


class InMongo(Contender):
    @cached_property
    def client(self) -> Any:
        from pymongo import MongoClient

        return MongoClient(os.environ["MONGO_URL"], w="majority", journal=True)


class MongoFloor(InMongo):
    """One find_one and one update with `$push`, `$each` and `$slice`: the least there is to do in one document."""

    @cached_property
    def documents(self) -> Any:
        return self.client["onesource"]["floor"]

    def messages(self, pair: Pair) -> list[Any]:
        return [json.loads(line) for line in lines(pair).splitlines()]

    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        messages = [message for pair in pairs for message in self.messages(pair)]
        self.documents.replace_one({"_id": session}, {"messages": messages}, upsert=True)

    def turn(self, session: str, pair: Pair) -> None:
        assert self.documents.find_one({"_id": session})["messages"] is not None
        self.append(session, pair)

    def append(self, session: str, pair: Pair) -> None:
        push = {"$each": self.messages(pair), "$slice": -self.window}
        self.documents.update_one({"_id": session}, {"$push": {"messages": push}})

    def contents(self, session: str) -> list[str]:
        return [message["content"] for message in self.documents.find_one({"_id": session})["messages"]]


class OnesourceMongoStore(OnesourceStore):
    """onesource's MongoDB store alone."""

    alias = "mongo"

    def empty(self, session: str) -> None:
        from conversations.models import Conversation

        Conversation.objects.filter(pk=f"conv:{session}").delete()


class OnesourceMongo(OnesourceMongoStore, Onesource):
    """onesource's history with MongoDB as the primary; Redis is read too, as the policy has it."""


class LangChainMongo(InMongo):
    """langchain-mongodb: MongoDBChatMessageHistory, a document for each message; reads the newest only."""

    trims = False

    def __init__(self) -> None:
        self._histories: dict[str, Any] = {}

    def history(self, session: str) -> Any:
        if session not in self._histories:
            from langchain_mongodb import MongoDBChatMessageHistory

            self._histories[session] = MongoDBChatMessageHistory(
                None, session, client=self.client, history_size=self.window, create_index=not self._histories
            )
        return self._histories[session]

    messages = LangChain.messages

    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        from langchain_core.messages import message_to_dict

        history = self.history(session)
        history.clear()
        texts = [json.dumps(message_to_dict(m)) for pair in pairs for m in self.messages(pair)]
        key, text_key = history.session_id_key, history.history_key
        history.collection.insert_many([{key: session, text_key: text} for text in texts])

    turn = LangChain.turn

    def contents(self, session: str) -> list[str]:
        self.history(session).history_size = None
        return [message.content for message in self.history(session).messages]


class DualWrite(Onesource):
    """onesource's history with dual write: read from Redis, written to both."""

    def empty(self, session: str) -> None:
        super().empty(session)
        OnesourceMongoStore.empty(self, session)

    def fill(self, session: str, pairs: Sequence[Pair]) -> None:
        from conversations.stores import store

        super().fill(session, pairs)
        store("mongo").append(session, None, self.store.load(session).turns())


class SlowerAlone(DualWrite):
    """Read from Redis and written to MongoDB alone by onesource's stores: what dual write cannot be faster than."""

    def turn(self, session: str, pair: Pair) -> None:
        from conversations.stores import store

        history = self.store.load(session)
        assert [message.content for message in history]
        store("mongo").append(session, new_turn(pair, history.last_at))


FLOOR, MONGO_FLOOR = "floor", "floor, MongoDB"
CONTENDERS: dict[str, type[Contender]] = {
    FLOOR: Floor,
    "onesource, store": OnesourceStore,
    "onesource": Onesource,
    "onesource, chat": OnesourceChat,
    "llama-index": LlamaIndex,
    "langchain-community": LangChain,
    "openai-agents": OpenAIAgents,
    "agno": Agno,
    MONGO_FLOOR: MongoFloor,
    "onesource, MongoDB store": OnesourceMongoStore,
    "onesource, MongoDB": OnesourceMongo,
    "langchain-mongodb": LangChainMongo,
    "dual write": DualWrite,
    "slower store alone": SlowerAlone,
}
IN_REDIS = tuple(CONTENDERS)[:8]
IN_MONGO = tuple(CONTENDERS)[8:12]
DUAL = tuple(CONTENDERS)[12:]
