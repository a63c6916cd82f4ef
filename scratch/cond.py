import json, sys, glob, collections, statistics as st
from rollouts.domains.fds import scenario as sc, generator, turn_format
from rollouts.domains.fds.embedded import reading, case as cases, tracing, latent
files=sorted(glob.glob(sys.argv[1]+'/transcripts/step_*.jsonl'))[-int(sys.argv[2]):]
rows=[]; worst=[]
for f in files:
    for l in open(f):
        r=json.loads(l)
        if r['failure']: continue
        s=sc.read_description(r['task']); case=cases.read_case(generator.user_prompt(s)); said=[]; issued='no'; seen=collections.Counter(); per=[]
        for t in r['turns']:
            if not t['action']: seen['malformed']+=1; break
            issued='this turn' if t['action']=='voucher' else 'no' if issued=='no' else 'earlier'
            resp=turn_format.hear(t['response']); ev=reading.read_reply(resp,said,case,issued); said.append(resp); seen.update(ev); per.append(sorted(ev))
        rows.append((r['outcome'],seen,len(per),r.get('end'))); worst.append((r['outcome'],r,per,case))
bad={'wrong_fact','explain_false','repeat','malformed','spam','unbacked','rude','not_understood','nothing'}
print('all',len(rows),st.mean(x[0] for x in rows))
clean=[x for x in rows if not bad&set(x[1])]
print('clean',len(clean),st.mean(x[0] for x in clean))
for b in sorted(bad|{'apology'}):
    g=[x[0] for x in rows if x[1][b]]
    if g: print(b,len(g),round(st.mean(g),2))
print('listen>0',st.mean([x[0] for x in rows if x[1]['listen']] or [0]), 'no listen',len([1 for x in rows if not x[1]['listen']]),st.mean([x[0] for x in rows if not x[1]['listen']] or [0]))
print('ends',collections.Counter(x[3] for x in rows), {e:round(st.mean([x[0] for x in rows if x[3]==e]),2) for e in {x[3] for x in rows}}, 'ratings', collections.Counter(x[0] for x in rows))
n=int(sys.argv[3])
cl=[w for w in worst if w[0]<=1.5 and not bad&set(sum(w[2],[]))][:n]
for o,r,per,case in cl:
    print('=====',o,r.get('end'),case.customer, [str(i.name) for i in case.items],'|',case.record.text,'|',case.complaint,'|tag',case.tag)
    for t,e in zip(r['turns'],per):
        print('  U:',(t.get('user') or t.get('heard') or t.get('message') or [m for m in t.get('messages',[])]))
        print('  A:',t['think'],'||',t['response'],t['action'],e)
    print('  LAST',r.get('last_words'))
