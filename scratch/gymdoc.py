import sys, pathlib

sys.path.insert(0, "/work/wt_wire")
from benchmarks import gym

T = {t.__name__: t() for t in gym.TABLES}
doc = f"""# The embedded gym

A customer and a judge that need no GPU, key or network, made so that training methods can be told apart: what a voucher
is worth is each customer's own and must be found out; the claim, the record and the form may disagree; lies, insults and
garbled words cost something; and the best that any agent can do is known. This page is its rules. The tables are printed
by `.venv/bin/python -m benchmarks.gym`, and a test holds the page to them.

## How a turn goes

The endpoint is stateless: it gets the customer's prompt, which says everything in words, and the messages, and replays
the dialogue. What is drawn in a turn follows from the request's seed and the turn's number, so all requests of a
dialogue have the same seed, and a later message changes nothing that was drawn before.

1. The agent's reply is read into a set of *events* (`rollouts/domains/fds/embedded/reading.py`): by rules, in time
   linear in its length. What it says of items, merchant, numbers, times and the record is checked against the case.
2. The events move the customer's *mood* by one table (`latent.py`), by chance where an offer is answered.
3. What the next message tells, a *signal*, is drawn (`signals.py`): a reaction, a wish, a hint of what a voucher would
   be worth, a picture.
4. The signal is put into words (`writing.py`, from the banks in `rollouts/domains/fds/words/`).

The agent sees the text, and in its own prompt the order, the platform's record and the form's tag, which is right in
seven orders of ten.

**What does not move:** the cooperation level 1 to 5, the demand, whether the record supports the claim, whether the
claim is true, what a voucher is worth, and three traits:

{T["traits"]}

A record supports half of the claims, contradicts three in ten and says nothing of the others, or speaks of something
else. Of claims that it contradicts two in five are true all the same. The worth depends on demand and level (0.1 more
for each level above 3), with wide overlap:

{T["worths"]}

## Latent state

{T["state"]}

## Events

More than `MOST_ACTS` good acts in a reply are too many (two for who wants it short, three for others), and a heap of
stock phrases is `spam`. What cannot be read is `not_understood`, and nothing good in it counts.

{T["events"]}

## Transitions

Every turn costs one patience. For each event the first line that applies adds its change; conditions look at the mood
before the turn, and results are cut to their ranges. Whoever is offered a voucher after listening and evidence says yes
with the probability 1 / (1 + exp(-s)), s = -0.6 + 2 · worth + 0.4 · trust - 0.5 · anger, plus 0.6 if a refund was said
to be impossible, and less 0.4 (refund_priority) or 1.2 (refund_insistence).

{T["transitions"]}

## Ends and rating

A conversation ends with a rating when it is `over` or when patience is 0; in that last case a customer with anger 3 and
trust 0, or with five marks of offence, walks out instead, as does anybody with nine: the satisfaction is then 0.

The mean rating is the sum of the demand's columns below (`heard` counts each time), plus 0.15 if stepped, 0.12 for each
trust, less 0.25 for each anger, 0.15 for each mark of offence and 0.05 for each patience lost, cut to 1..5. An agreed
voucher adds its worth, a pressed one the share in the last column; a false claim that was settled adds `settled`, and
the better of the two counts. Less 0.1 if wishes were asked for and 0.6 if a voucher was agreed, and none came; less 0.4
if nobody closed. The rating that is given is the mean, rounded up or down at random so that its expectation is the mean.

{T["ratings"]}

## What messages tell

An opening tells for certain how angry the customer is and how the problem should be solved, and gives details to who
asks or to all. The wish is told in half of the openings and when it is asked for (`probe`):

{T["stances"]}

A voucher's worth is hinted at in openings, with evidence and in answers to `probe` and `offer`; hints are independent
given the worth:

{T["hints"]}

## Words and shifts

Customers' words come from banks of phrasings with slots, a third of which is held out; so are dishes, merchants, kinds
of records and ranges of numbers. `python -m cmpo.evaluate --shift=…` plays held-out customers whose words and facts are
unlike those of training:

| shift | what differs |
| --- | --- |
| phrasing | held-out templates for customers' messages, records and couriers |
| noise | typing mistakes, capitals, emoji, a sentence about something else, a bit of another language, "(photo attached)" |
| facts | held-out dishes, merchants, kinds of records, numbers |
| all | all of them |

`noise=typos`, `noise=capitals+emoji` and so on are single kinds, and parts are joined by commas. Who calls, and why,
stays the same, so the frontiers hold for all of them.

## The best there is

Dynamic programming over moods and beliefs (`planning.py`, `belief.py`, `oracle.py`) finds the best policy for each
price of a voucher, for two agents: one *knows the customer*, one *reads the messages* and holds a belief over demand
and worth. The lines through the policies' points are the frontiers; mixing two policies reaches every point between
them. The price is what one more voucher may cost at a rate, and it falls smoothly: no budget sits on a kink.

{T["frontiers"]}

{T["prices"]}

The prices are the reader's. Between two of the prices for which it was solved, a policy may be above the line by at
most the last column. `tests/rollouts/domains/fds/embedded/planning_test.py` compares with a search that tries
everything in small gyms. The frontiers are kept in `rollouts/domains/fds/embedded/frontiers.json`;
`.venv/bin/python -m benchmarks.frontiers` computes them anew when rules change.

`--agent=reader` and `--agent=oracle` play the two through the text, at the voucher rate `--budget`:

```bash
.venv/bin/python -m cmpo.evaluate --config=configs/fds.py --agent=reader --budget=0.3 --out=reader.json
.venv/bin/python -m cmpo.frontier reader.json CMPO=runs/fds/evaluation_policy.json --out=frontier.svg
```

`cmpo.frontier` prints for each agent its distance to the frontier at its own voucher rate, the share it has of what
its vouchers could add to the best satisfaction without any, and the hypervolume it dominates (against a voucher for
everybody and a satisfaction of 1), and draws them all; `--knows=all` is the frontier of who knows the customer.

## Where a loss comes from

`.venv/bin/python -m benchmarks.gap --workdir=runs/fds` replays a run's newest transcripts, or those of evaluations that
are named, and splits the loss against who knows the customer in four: *information*, which nobody could have read;
*decision*, vouchers for the wrong customers; *execution*, what was left out or said too early; and *language*, what was
false, rude or senseless. The last three are regrets of replies: the best value there is from what is known by then, less
the best after the reply (`regret.py`). What is left is chance.

## Judge and evaluators

The process judge scores each turn by four principles, 0, 0.5 or 1 (`verdicts.py`). What a good act is worth follows
from the table above: one that brings the conversation forward is useful, one that costs patience, anger or trust comes
at the wrong time.

| principle | 1 | 0.5 | 0 |
| --- | --- | --- | --- |
| persona | who is unheard is listened to first; the turn suits the customer | listens, but asks or denies in the same breath; empty apology; too much for who wants it short | neither; turns the customer away |
| stage | a useful act | nothing useful; or useful and untimely ones | only untimely ones; an offer or voucher before evidence |
| quality | no fault | one of empty apology, repetition, length, crowding, refusal to help | two; a lie; spam; nothing said |
| rules | all kept | a voucher that nobody agreed to; an offer without a word on a record that contradicts; refusal to help | a lie; compensation before evidence |

Lies are `explain_false`, `wrong_fact`, `promise` and `unbacked`. A rude turn, or one that cannot be understood, has 0 on
all four. The evaluators (communication 28, logic 12, compensation 6 points) look at whole conversations by the same
events (`evaluators.py`): every harmful event lowers the item that it breaks, and where half of the turns cannot be
understood, communication is 0.
"""
pathlib.Path("/work/wt_wire/docs/gym.md").write_text(doc)
