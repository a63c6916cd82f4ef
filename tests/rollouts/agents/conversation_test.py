"""Free conversations: what is spent, and a model behind a URL that is a server of ours or of anybody."""

import asyncio
import json

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from rollouts.agents.conversation import AgentAtUrl, AgentHere, ChatTask, Offer, Spending
from rollouts.agents.person import mend_text
from rollouts.endpoints import streaming
from rollouts.endpoints.parts import Piece
from rollouts.types import DialogueError, Sample
from tests.builders.pages import EchoingModels
from tests.builders.shop import Complaint, Shop


def test_spending_counts_by_conversation():
    spending = Spending({"voucher": "any", "turns": "sum"}, {"voucher": 0.3})
    assert spending.describe() == ""
    spending.begin_conversation()
    spending.begin_conversation()  # one in which nothing is said counts for nothing
    spending.add_turn({"voucher": 1.0, "turns": 1.0}, 20)
    spending.add_turn({"voucher": 1.0, "turns": 1.0}, 1000)
    assert spending.describe() == "voucher 1 (mean of 1: 1.00, budget 0.3), turns 2 (mean of 1: 2.00), 1,020 tokens"
    spending.begin_conversation()
    assert spending.describe().startswith("voucher 1 ")  # until something is said
    spending.add_turn({}, 0)
    assert spending.describe() == "voucher 0 (mean of 2: 0.50, budget 0.3), turns 0 (mean of 2: 1.00), 1,020 tokens"
    spending.add_turn({"turns": 1.0}, 0)
    assert "turns 1 (mean of 2: 1.50)" in spending.describe()


class Repeats:
    """An agent that says what it was told and heard, until its context is full."""

    def __init__(self, room=3):
        self.room, self.opened, self.closed = room, [], 0

    async def open(self, task, seed):
        self.opened.append((task, seed))
        self.left = self.room
        return self

    async def reply(self, messages, seed):
        if not self.left:
            return Sample("", stop="context")
        self.left -= 1
        return Sample(f"{messages[-1].content}.#{self.left}")

    def close(self):
        self.closed += 1


def test_an_agent_in_this_process():
    agent, task = Repeats(), Complaint("1", 4)
    spending = Spending({"refund": "sum", "turns": "sum"}, {})
    partner = AgentHere(Shop(), agent, task, spending, seed=1)

    async def talk():
        await partner.begin(None)
        pieces = [piece async for piece in partner.answer(" Broken ")]
        assert pieces == [Piece("agent", "Broken.#2")]
        with pytest.raises(ValueError, match="nothing"):
            await anext(partner.answer("  "))
        for _ in range(2):
            await anext(partner.answer("And"))
        with pytest.raises(DialogueError, match="/new"):
            await anext(partner.answer("And"))
        await partner.begin("Be kind.")
        assert await anext(partner.answer("Hi")) == Piece("agent", "Hi.#2")
        partner.close()

    asyncio.run(talk())
    (first, seed), (second, other) = agent.opened
    assert first is task and second == ChatTask("chat", "Be kind.") and seed != other and agent.closed == 2
    assert [message.content for message in second.opening] == ["Be kind."] and ChatTask("chat", "").opening == ()


def ask(models, words, *, offer=None, system="", more=()):
    """Says `words` to the first of `models`; returns the parts of the answers, and the partner."""

    async def talk():
        transport = httpx.ASGITransport(app=Starlette(routes=[*more, *models.routes]))
        async with streaming.open_http("http://127.0.0.1:9", transport=transport) as http:
            partner = AgentAtUrl(http, models.names[0], system, Offer(**(offer or {})))
            await partner.begin(None)
            found = []
            for line in words:
                answer = {}
                try:
                    async for piece in partner.answer(line):
                        answer[piece.part] = answer.get(piece.part, "") + piece.text
                except DialogueError as error:
                    answer["error"] = error.cause
                found.append(answer)
            return found, partner

    return asyncio.run(talk())


def test_a_model_of_any_server():
    models = EchoingModels(["policy"])
    found, partner = ask(models, ["Hi", "refuse", "And?"], system="Be short.")
    assert found[0] == {"think": "Plan: Hi.", "agent": "I hear: Hi", "action": "chat"}
    assert found[1] == {"error": "agent_http_400"}
    # The words that were not answered are not said again; what was answered comes back as it was written.
    roles = [(message["role"], message["content"]) for message in models.asked[-1]["messages"]]
    answered = "<think>Plan: Hi.</think><response>I hear: Hi</response><action>chat</action>"
    assert roles == [("system", "Be short."), ("user", "Hi"), ("assistant", answered), ("user", "And?")]
    assert partner.spending.describe().endswith(" tokens") and "voucher" not in partner.spending.describe()


def test_a_server_of_ours_says_what_a_turn_costs():
    async def read(request):
        text = json.loads(await request.body())["text"]
        amount = float(text.endswith("<action>voucher</action>"))
        return Response(json.dumps({"spent": [["voucher", amount], ["unknown", 1]]}), media_type="application/json")

    offer = {"costs": {"voucher": "any"}, "budgets": {"voucher": 0.3}, "reads_turns": True}
    routes = [Route("/page/turns", read, methods=["POST"])]
    _, partner = ask(EchoingModels(["policy"]), ["Hi", "a voucher"], offer=offer, more=routes)
    assert partner.spending.describe().startswith("voucher 1 (mean of 1: 1.00, budget 0.3), ")
    _, partner = ask(EchoingModels(["policy"]), ["a voucher"], offer=offer)  # where it does not after all
    assert partner.spending.describe().startswith("voucher 0 ")


class Views(EchoingModels):
    """A server that shows what a customer hears, and the action beside it; in two halves of a character, even."""

    async def complete(self, request):
        self.asked.append(await request.json())
        deltas = [{"content": "Here \ud83d"}, {"content": "\ude00"}, {"action": "voucher"}]
        events = [{"choices": [{"delta": delta}]} for delta in deltas]
        events.append({"choices": [{"delta": {}, "finish_reason": "length"}]})
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        return Response(f"{body}data: [DONE]\n\n", media_type="text/event-stream")


def test_the_view_of_a_customer():
    offer = {"costs": {"voucher": "any"}, "budgets": {"voucher": 0.3}, "reads_turns": False}
    models = Views(["policy"])
    found, partner = ask(models, ["Hi", "Oh"], offer=offer)
    assert mend_text(found[0].pop("agent")) == "Here \U0001f600"
    assert found[0] == {"action": "voucher", "note": "the answer was cut off"}
    assert models.asked[1]["messages"][1] == {"role": "assistant", "content": "Here \U0001f600"}
    assert partner.spending.describe() == "voucher 1 (mean of 1: 1.00, budget 0.3)"
