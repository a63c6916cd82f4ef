"""Chat completions: finds the stream of the conversation, has answers drawn, and keeps them."""

import functools
from collections.abc import Callable

import numpy as np

from rollouts import chat, tool_calls
from rollouts.engine.engine import TokenMask
from rollouts.serving import tool_use
from rollouts.serving.answering import (
    CallReader,
    DrawnAnswer,
    Read,
    Reader,
    Start,
    WholeReader,
    Wish,
    choose_seeds,
    read_reasoning,
)
from rollouts.serving.conversations import KeptConversation, Spoken, describe_tools, hash_others, sort_arguments
from rollouts.serving.overseer import Overseer
from rollouts.serving.protocol import ChatMessage, ChatRequest, RequestError, name_field
from rollouts.serving.responses import Usage
from rollouts.serving.served import Served, choose_options
from rollouts.types import Message

View = Callable[[str], Read]
"""What a client is sent of a model's whole text."""


class ChatExchange:
    """One request for the next message of a conversation, and its answers.

    Attributes:
      wish: how answers are drawn.
      starts: where.
      prompts: [1] the whole stream before the answers.
      id: of the answer.
    """

    def __init__(
        self,
        served: Served,
        request: ChatRequest,
        *,
        session: str,
        entropy: Callable[[], int],
        overseer: Overseer | None,
        view: View | None,
        reasoning: bool,
    ):
        """Finds the stream; `session` is the conversation's x-session-id, or "". Raises RequestError."""
        self._served, self._overseer = served, overseer
        self._use = _read_tool_use(request)
        self._messages = self._prepare_messages(request)
        self._said = [_compare_form(message) for message in request.messages]
        self._added = len(self._messages) - len(self._said)  # 1 where there was no system message, and now is
        self._told = describe_tools(self._use.offered)
        count = request.n or 1
        options = choose_options(served, request)
        known = served.conversations.find(self._told, self._said, session)
        prompt = self._encode(known)
        served.check_room(prompt, "messages")
        constraint = _make_constraint(served, request, self._use)
        self._outputs = known.outputs if known else ()
        places = served.conversations.go_on(known, count, session)
        self._places, self._dialogue = dict(enumerate(places)), places[0].dialogue
        self.prompts, self._cached = [prompt], len(places[0].session.ids)
        self.starts = [Start(place.session, prompt[len(place.session.ids) :]) for place in places]
        self.id = f"chatcmpl-{self._dialogue}-{len(self._outputs)}"
        self.wish = Wish(
            choose_seeds(request.seed, count, entropy),
            options,
            request.stop,
            [constraint and constraint.fork() for _ in range(count)],
            self._choose_reader(view, reasoning),
            self._review if overseer else None,
            bool(overseer and overseer.enforces),
        )

    def keep(self, index: int, answer: DrawnAnswer) -> None:
        """Keeps the conversation with an answer in it, for a client that comes back with it."""
        place = self._places.pop(index)
        ids, (prompt,) = place.session.ids.copy(), self.prompts
        if answer.rewritten:
            place.session.rewind(len(prompt))
            tokenizer = self._served.tokenizer
            ids = np.array([*prompt, *tokenizer.encode(answer.text), tokenizer.im_end], np.int32)
        calls = [(call["function"]["name"], sort_arguments(call["function"]["arguments"])) for call in answer.calls]
        messages = [*self._said, Spoken("assistant", answer.content, tuple(calls))]
        others = hash_others(self._told, messages)
        outputs = (*self._outputs, answer.text)
        known = KeptConversation(self._dialogue, ids, outputs, len(messages), others, place.session)
        self._served.conversations.keep(place, known, self._told, messages)

    def count_usage(self, sampled: int) -> Usage:
        """Counts tokens, after so many were `sampled`."""
        return Usage(len(self.prompts[0]), self._cached, sampled)

    def close(self) -> None:
        """Lets go of the streams of answers that were not kept."""
        while self._places:
            self._served.conversations.release(self._places.popitem()[1])

    def _review(self, text: str, tokens: int) -> str:
        return self._overseer.review(self._dialogue, text, before=self._outputs, tokens=tokens)

    def _choose_reader(self, view: View | None, reasoning: bool) -> Callable[[int], Reader]:
        if view and not self._use.callable:
            return lambda index: WholeReader(view)
        use = self._use

        def read_calls(index: int) -> Reader:
            key = f"{self.id}/{index}"
            return CallReader(tool_calls.OutputReader(use.callable, key=key, parallel=use.parallel, forced=use.forced))

        if reasoning:
            return lambda index: WholeReader(functools.partial(read_reasoning, read_calls(index)))
        return read_calls

    def _encode(self, known: KeptConversation | None) -> np.ndarray:
        """Returns the stream before the answer, [T] int32: what is `known` of it as it is, and what is new."""
        tokenizer = self._served.tokenizer
        if known is None:
            return np.array(chat.encode_opening(tokenizer, self._messages), np.int32)
        new = chat.encode_reply(tokenizer, self._messages[self._added + known.count :])
        closing = [] if known.ids[-1] == tokenizer.im_end else [tokenizer.im_end]  # a stop or a limit ended it
        return np.array([*known.ids, *closing, *new], np.int32)

    def _prepare_messages(self, request: ChatRequest) -> list[Message]:
        """Renders the conversation as the model is told it."""
        with name_field():
            messages = [self._render_message(number, message) for number, message in enumerate(request.messages)]
        given = messages[0].role == "system"
        system = messages[0].content if given else self._served.system
        rest = messages[1:] if given else messages
        if system is None and not self._use.offered:
            return rest
        return [Message("system", tool_calls.write_system(system, self._use.offered)), *rest]

    def _render_message(self, number: int, message: ChatMessage) -> Message:
        content = message.content or ""
        if message.role in ("user", "tool"):
            content = self._served.hear(content)
        if message.tool_calls:
            calls = [call.model_dump() for call in message.tool_calls]
            content = tool_calls.write_calls(content, calls, field=f"messages[{number}].tool_calls")
        return Message(_name_role(message), content)


def read_dialogue(id: str) -> str:
    """Reads the name of the dialogue out of the id of an answer."""
    return id.removeprefix("chatcmpl-").rpartition("-")[0]


def _read_tool_use(request: ChatRequest) -> tool_use.ToolUse:
    """Reads what a request says about tools. Raises RequestError."""
    asked = {name: getattr(request, name) for name in ("tools", "tool_choice", "parallel_tool_calls")}
    with name_field():
        return tool_use.read_tool_use(asked)


def _make_constraint(served: Served, request: ChatRequest, use: tool_use.ToolUse) -> TokenMask | None:
    """Makes what an answer must follow; None: nothing. Raises RequestError."""
    form = request.response_format
    structured = form is not None and form.type != "text"
    if not (structured or use.forced):
        return None
    if structured and use.callable:
        raise RequestError("'response_format': not supported together with tools", param="response_format")
    if served.constraints is None:
        param = "response_format" if structured else "tool_choice"
        raise RequestError(f"'{param}': this model writes in a format of its own", param=param)
    with name_field():
        if structured:
            return served.constraints.constrain_json(form.json_schema and form.json_schema.schema_)
        return served.constraints.constrain_calls(use.offered, names=use.names, parallel=use.parallel)


def _name_role(message: ChatMessage) -> str:
    return "system" if message.role == "developer" else message.role


def _compare_form(message: ChatMessage) -> Spoken:
    calls = [(call.function.name, sort_arguments(call.function.arguments)) for call in message.tool_calls or ()]
    return Spoken(_name_role(message), message.content or "", tuple(calls))
