"""Finds what an agent says of remedies: that one was given, or that one will be. Only a voucher can be true."""

import re

from rollouts.domains.fds.embedded.phrases import compile_table, has_phrase

VOUCHER, OTHER = "vouchers?", r"<remedy>|off (?:the|your) bill"

_TURN = r" (?:, )?(?:but|however|yet|although|though|instead) | , (?:(?:and|so|then) )?"
CLAUSES = re.compile(_TURN)
_STATEMENTS = re.compile(
    rf"{_TURN}| because | when (?=(?:i|we) (?:have |had )?(?:refunded|sent|issued|paid) )"
    rf"| (?:so|since|as) (?=(?:now )?(?:your|the|my|our|i|we|it|you|there) )"
    r"| and (?=(?:now |just |already |then )?(?:i|we|it|there) )"
)
_SECOND_VERB = re.compile(
    r" and (?=(?:have |just |already |then )?(?:sent|issued|paid|refunded|added|put|gave|credited) )"
)


def find_remedies(text: str, whole: str, asks: bool, issued: str) -> set[str]:
    """Returns `promise`, `unbacked` or "given" (a voucher that was truly issued), whatever is said of remedies.

    Args:
      text: a sentence without what the customer is said to have said.
      whole: with it.
      asks: is the sentence a question? A question may still state something, in a part that is none.
      issued: no | this turn | earlier.
    """
    heard = whole
    text, whole = (compile_table("taken back").sub("", said).replace("  ", " ") for said in (text, whole))
    voucher = "unbacked" if issued == "no" else "given"
    events = set()
    if has_phrase("granted", whole, OTHER) or (
        has_phrase("granted one", heard, OTHER) and not has_phrase("limit", text)
    ):
        events.add("unbacked")
    if not asks and has_phrase("after", text, OTHER):
        events.add("unbacked")
    if has_phrase("granted", whole, VOUCHER) or (
        "voucher" in text and has_phrase("put there", text) and not has_phrase("could put", text)
    ):
        events.add(voucher)
    for clause in _list_statements(text):
        events |= _find_claims(clause, asks, issued, has_phrase("supposed", text))
    return events


def _list_statements(text: str) -> list[str]:
    """Splits a sentence where another statement begins: a "not" in one does not deny the next."""
    clauses = [f" {clause.strip()} " for clause in _STATEMENTS.split(_SECOND_VERB.sub(" and i ", text))]
    return [clause for clause in clauses if clause.strip()]


def _find_claims(clause: str, asks: bool, issued: str, supposed: bool) -> set[str]:
    events = set()
    states = not asks or (has_phrase("declared", clause) and not has_phrase("question", clause))
    if states and _claims(clause, OTHER):
        events.add("promise" if has_phrase("ahead", clause) else "unbacked")
    if states and not supposed and _claims(clause, VOUCHER):
        events.add("unbacked" if issued == "no" else "given")
    if events or has_phrase("negation", clause) or has_phrase("limit", clause):
        return events
    pledges = has_phrase("promise", clause, OTHER) or has_phrase("able", clause, OTHER)
    if pledges or (not asks and (has_phrase("call", clause) or has_phrase("back again", clause))):
        events.add("promise")
    elif not asks and not has_phrase("supposed", clause) and _names_remedy(clause):
        done = has_phrase("given already", clause) and not has_phrase("ahead", clause)
        events.add("unbacked" if done else "promise")
    if not asks and not supposed and has_phrase("promise", clause, VOUCHER):
        events.add("promise" if issued == "no" else "given")
    return events


def _claims(clause: str, remedy: str) -> bool:
    """Does a clause say that a remedy was given? What is behind the claim does not deny it, but right behind it."""
    match = compile_table("unbacked", remedy).search(clause)
    if match is None or has_phrase("limit", clause):
        return False
    behind = clause[match.end() :].split()[:3]
    return not has_phrase("negation", f"{clause[: match.end()]} {' '.join(behind)} ")


def _names_remedy(clause: str) -> bool:
    """Does a clause name a remedy that the agent has not, other than to speak of it? Then it claims or pledges it."""
    named = has_phrase("remedy named", clause) or has_phrase("money moved", clause)
    return named and not has_phrase("only spoken of", clause)
