import itertools, json, random, time
from rollouts.domains.fds import generator
from rollouts.domains.fds.hearing import hear_message
from rollouts.domains.fds.embedded import signals, writing, case as cases, belief as B
from rollouts.domains.fds.gym_agents import _WISHES
from rollouts.domains.fds.scripted import _PROBLEMS
t=time.time(); out=[]; n=0
for s in itertools.islice(generator.deal_scenarios(5, split="train"), 14000):
    case=cases.read_case.__wrapped__(generator.user_prompt(s)); rng=random.Random(n); n+=1
    sig=signals.draw_signal(signals.list_openings(case.customer), rng)
    text=writing.write_message(sig, case, rng, case.shift)
    h=hear_message(text,[*(i.name for i in case.items),case.merchant],first=True)
    b=B.open_belief(h.signal, None, split="train"); w=max(b.demands,key=b.demands.get)
    out.append([{"role":"user","content":text},{"role":"assistant","content":f"<think>{_PROBLEMS.get(h.complaint,'Unclear')}. {b.known.wants.capitalize()}, anger {b.mood.anger}, {_WISHES[w]}, worth {b.worth/10:.1f}.</think>"}])
print(time.time()-t, out[0], out[1], sum(o[1]["content"].startswith("<think>Unclear") for o in out))
json.dump(out, open('/tmp/k/d/openings.json','w'))
