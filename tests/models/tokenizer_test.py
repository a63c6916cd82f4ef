"""The tokenizer: text survives it, control tokens are never text, directories are read back."""

import functools
import pathlib
import tempfile
import unicodedata

import hypothesis
import transformers
from absl.testing import absltest, parameterized
from hypothesis import strategies as st

from models import tokenizer

TEXTS = [
    "<think>The order 4711 is late.</think><response>I'm sorry to hear that! Let me look.</response>",
    "<action>offer_voucher</action><|im_end|> What's the refund? It'll be 12.50 by Tuesday.\n\n",
    "Ünïcödé and 你好, and the order that I'm waiting for is late again; the refund is late as well.",
] * 5


@functools.cache
def trained():
    return tokenizer.train_tokenizer(TEXTS, 340)


class TokenizerTest(parameterized.TestCase):
    @hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
    @hypothesis.given(st.lists(st.one_of(st.text(), st.sampled_from(tokenizer.CONTROL + tokenizer.TAGS))).map("".join))
    def test_text_survives_and_never_becomes_control(self, text):
        ids = trained().encode(text)
        self.assertEqual(trained().decode(ids), unicodedata.normalize("NFC", text))
        self.assertTrue(trained().control_ids.isdisjoint(ids))

    @hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
    @hypothesis.given(st.lists(st.one_of(st.text(), st.sampled_from(["\ufffd", "🙂\ufffd", "é"]))).map("".join))
    def test_texts_of_tokens_make_the_text(self, text):
        ids = trained().encode(text)
        spelled = trained().spell(ids)
        self.assertLen(spelled, len(ids))
        self.assertEqual("".join(spelled), unicodedata.normalize("NFC", text))

    @hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
    @hypothesis.given(
        st.lists(st.one_of(st.sampled_from(sorted(set(trained().encode("é€🙂\ufffd")))), st.integers(0, 400)))
    )
    def test_texts_of_any_tokens_make_what_they_are_together(self, ids):
        spelled = trained().spell(ids)
        self.assertLen(spelled, len(ids))
        self.assertEqual("".join(spelled), trained().decode(ids))

    def test_the_last_token_of_a_character_has_all_of_it(self):
        self.assertEqual(trained().spell(trained().encode("a🙂b")), ["a", "", "", "", "🙂", "b"])
        broken = trained().encode("🙂")[:2]  # and what is no character is said to be none
        self.assertEqual(trained().spell([*broken, trained().im_end]), ["", "\ufffd", "<|im_end|>"])
        self.assertEqual(trained().spell(broken), ["", "\ufffd"])
        self.assertEqual(trained().spell([]), [])

    def test_a_replacement_character_is_a_character(self):
        self.assertEqual(trained().spell(trained().encode("\ufffda🙂")), ["", "", "\ufffd", "a", "", "", "", "🙂"])
        self.assertEqual(trained().spell(trained().encode("\ufffd" * 2)), ["", "", "\ufffd"] * 2)

    def test_what_is_no_token_has_no_text(self):
        first, *others = trained().encode("🙂")
        self.assertEqual(trained().spell([first, 4711, *others, 4711]), ["", "", "", "", "🙂", ""])

    def test_tags_are_one_id_and_control_tokens_are_text(self):
        ids = trained().encode("".join(tokenizer.TAGS))
        self.assertLen(set(ids), len(tokenizer.TAGS))
        self.assertEqual(trained().control_ids, {trained().endoftext, trained().im_start, trained().im_end})
        for token in tokenizer.CONTROL:
            self.assertGreater(len(trained().encode(token)), 1)
        self.assertEqual(
            trained().decode([trained().im_start, *trained().encode("user"), trained().im_end]),
            "<|im_start|>user<|im_end|>",
        )

    def test_training(self):
        self.assertEqual(trained().vocab_size, 340)
        self.assertLen(trained().encode(" late"), 1)
        ids = [*trained().control_ids, *trained().encode("".join(tokenizer.TAGS))]
        self.assertCountEqual(ids, range(331, 340))
        with self.assertRaisesRegex(ValueError, "at least 265, got 264"):
            tokenizer.train_tokenizer(TEXTS, 264)

    def test_directory_is_deterministic_and_read_back_by_ours_and_by_transformers(self):
        with (
            tempfile.TemporaryDirectory() as one,
            tempfile.TemporaryDirectory() as two,
            tempfile.TemporaryDirectory() as three,
        ):
            trained().save(one)
            tokenizer.train_tokenizer(TEXTS, 340).save(two)
            loaded = tokenizer.load(one)
            loaded.save(three)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                contents = {(pathlib.Path(path) / name).read_bytes() for path in (one, two, three)}
                self.assertLen(contents, 1)
            theirs = transformers.AutoTokenizer.from_pretrained(one)
        text = "<think>It's late.</think> 你好 <|im_end|> \r\n  12"
        self.assertEqual(loaded.encode(text), trained().encode(text))
        self.assertEqual(theirs.encode(text, split_special_tokens=True), trained().encode(text))
        self.assertEqual(theirs.decode(trained().encode(text)), text)
        self.assertLen(theirs, trained().vocab_size)
        self.assertEqual((theirs.eos_token_id, theirs.pad_token_id), (trained().im_end, trained().endoftext))
        self.assertEqual(theirs.encode("<|im_start|>"), [trained().im_start])

    def test_what_is_no_tokenizer_is_named(self):
        with tempfile.TemporaryDirectory() as path:
            with self.assertRaisesRegex(FileNotFoundError, f"^{path}/none: expected a tokenizer directory.*$"):
                tokenizer.load(path + "/none")
            file = pathlib.Path(path) / "tokenizer.json"
            file.write_text("{")
            with self.assertRaisesRegex(ValueError, f"^{path}: expected a Hugging Face tokenizer.*$"):
                tokenizer.load(path)
            trained().save(path)
            file.write_text(file.read_text().replace("<|im_end|>", "<|other|>"))
            with self.assertRaisesRegex(ValueError, f"^{path}: .*lacks the ChatML tokens <.im_end.>$"):
                tokenizer.load(path)


if __name__ == "__main__":
    absltest.main()
