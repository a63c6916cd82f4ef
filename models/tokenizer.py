"""Tokenizers in Hugging Face's directory format, and the training of a small one that works like Qwen2.5's.

Text never turns into a control token: what a user or a judge writes is data, even when it spells `<|im_end|>`. Control
tokens enter a stream by their ids only (`Tokenizer.im_start` and friends).
"""

import itertools
import json
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers, processors, trainers

from models import chat_template
from models.objects import replace_file
from models.tokenizer_files import SETTINGS, list_tokens, read_settings, set_qwen2_parts

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Special tokens; the order of their ids in Qwen2.5 (151643, 151644, 151645)."""

TAGS = ("<think>", "</think>", "<response>", "</response>", "<action>", "</action>")
"""The turn format's tags: one token each, ordinary in every other respect."""

SMALLEST = 256 + len(CONTROL) + len(TAGS)
"""The size of the smallest vocabulary that can write anything."""

_DIALOGUE = (
    "<|im_start|>system\nYou serve.\n<|im_end|>\n<|im_start|>user\n It's 12 o'clock! <|im_end|>\n"
    "<|im_start|>assistant\n<think>So</think><|im_end|>\n"
)


class Tokenizer:
    """Text to ids and back.

    Attributes:
      vocab_size: rows of an embedding that has one for each id, added tokens included.
      endoftext: id of `<|endoftext|>`, the padding.
      im_start: id of `<|im_start|>`, which opens a message.
      im_end: id of `<|im_end|>`, which closes it.
      control_ids: the ids of all special tokens, which `encode` never returns.
    """

    def __init__(self, backend: tokenizers.Tokenizer, settings: dict[str, Any]):
        missing = [token for token in CONTROL if backend.token_to_id(token) is None]
        if missing:
            raise ValueError(f"the vocabulary lacks the ChatML tokens {', '.join(missing)}")
        # Makes the backend read special tokens in a text as the characters they are; not saved with it.
        backend.encode_special_tokens = True
        self._backend = backend
        self._settings = settings
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self.endoftext, self.im_start, self.im_end = (backend.token_to_id(token) for token in CONTROL)
        self.control_ids = frozenset(id for id, token in backend.get_added_tokens_decoder().items() if token.special)
        if plain := [token for token in CONTROL if backend.token_to_id(token) not in self.control_ids]:
            raise ValueError(f"{', '.join(plain)}: expected special tokens, else a text that spells one becomes one")

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, none of them in `control_ids`; tags known to the vocabulary are one id each."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`, control tokens spelled out; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode([int(id) for id in ids], skip_special_tokens=False)

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Returns the text of each id; of byte-level tokens, as Qwen2.5's are, they are `decode(ids)` together.

        Of tokens that share a character, the last has all of it, and those before it have "". So have ids that are not
        in the vocabulary.
        """
        known = [place for place, id in enumerate(ids) if self._backend.id_to_token(int(id)) is not None]
        texts, begun = [""] * len(ids), []
        for place, after in itertools.zip_longest(known, known[1:]):
            begun.append(ids[place])
            text = self.decode(begun)
            # A character that goes on in the next token is more than one where it is cut; U+FFFD itself may be text.
            following = [] if after is None else [ids[after]]
            if text.endswith("\ufffd") and self.decode([*begun, *following]) != text + self.decode(following):
                continue
            texts[place], begun = text, []
        return texts

    def find_default_system(self) -> str | None:
        """Returns the system text that the chat template adds where a conversation has none; None where it adds none.

        Raises ValueError, see `models.chat_template.find_default_system`.
        """
        template = self._settings["chat_template"]
        if not isinstance(template, str):
            template = next(item["template"] for item in template if item["name"] == "default")
        return chat_template.find_default_system(template, self._backend, list_tokens(self._settings))

    def to_json(self) -> str:
        """Returns the content of its tokenizer.json, for libraries that read one."""
        return self._backend.to_str()

    def save(self, path: str | pathlib.Path) -> None:
        """Writes `tokenizer.json` and `tokenizer_config.json`, as `load` and `transformers.AutoTokenizer` read them."""
        path = pathlib.Path(path)
        path.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(path / "tokenizer.json"))
        # It comes last and whole: if it is there, all files are.
        replace_file(path / "tokenizer_config.json", json.dumps(self._settings, indent=2) + "\n")


def load(path: str | pathlib.Path) -> Tokenizer:
    """Reads a directory with a ChatML `tokenizer.json`: Qwen2.5's, or one that `Tokenizer.save` wrote.

    Raises:
      FileNotFoundError: when there is no such directory, or no `tokenizer.json` in it.
      ValueError: when a file does not parse, the vocabulary lacks ChatML's tokens, or a file or an option beside
        `tokenizer.json` asks for what this tokenizer does not do; the message names it.
    """
    path = pathlib.Path(path)
    if not (path / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{path}: expected a tokenizer directory with a tokenizer.json (of other files, transformers' "
            "AutoTokenizer makes one: from_pretrained, then save_pretrained)"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        # These settings would cut or lengthen what is encoded; transformers sets them anew at every call.
        backend.no_truncation()
        backend.no_padding()
        Tokenizer(backend, SETTINGS)
    except Exception as error:  # The backend raises bare Exceptions.
        raise ValueError(f"{path}: expected a Hugging Face tokenizer with ChatML tokens: {error}") from error
    tokenizer = Tokenizer(backend, read_settings(path, backend))
    _check_parts_and_whole(path, tokenizer, backend)
    return tokenizer


def _check_parts_and_whole(path: pathlib.Path, tokenizer: Tokenizer, backend: tokenizers.Tokenizer) -> None:
    """Raises ValueError unless a dialogue has the same ids in parts, as in training, and as a whole, as in serving."""
    parts = [part for part in re.split(f"({'|'.join(map(re.escape, CONTROL))})", _DIALOGUE) if part]
    ours = [[backend.token_to_id(part)] if part in CONTROL else tokenizer.encode(part) for part in parts]
    backend.encode_special_tokens = False
    whole = backend.encode(_DIALOGUE, add_special_tokens=False).ids
    backend.encode_special_tokens = True
    if sum(ours, []) != whole or tokenizer.decode(whole) != _DIALOGUE:
        raise ValueError(
            f"{path}: tokenizer.json: expected the ids of a dialogue to be those of its parts, and its text to "
            "survive; its normalizer, pre_tokenizer or the flags of a ChatML token (lstrip, rstrip) do not let it"
        )


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE with Qwen2's normalizer and pre-tokenizer; the same texts give the same tokenizer.

    Args:
      texts: what to learn merges from; tags and control tokens in them are left out.
      vocab_size: number of ids, at least 265 (256 bytes, `CONTROL`, `TAGS`, which come last). Short texts give fewer:
        read `Tokenizer.vocab_size`.

    Raises:
      ValueError: when `vocab_size` is too small.
    """
    if vocab_size < SMALLEST:
        raise ValueError(f"vocab_size must be at least {SMALLEST}, got {vocab_size}")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    set_qwen2_parts(backend)
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROL) - len(TAGS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    markers = re.compile("|".join(map(re.escape, CONTROL + TAGS)))
    backend.train_from_iterator((piece for text in texts for piece in markers.split(text)), trainer)
    backend.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in CONTROL])
    backend.add_tokens([tokenizers.AddedToken(token, special=False, normalized=False) for token in TAGS])
    return Tokenizer(backend, SETTINGS)
