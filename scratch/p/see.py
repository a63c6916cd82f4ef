import sys
from tests.rollouts.domains.fds.embedded.sentences_test import BANK, read
only = sys.argv[1] if len(sys.argv)>1 else ""
n=bad=0
for where, section, events, name, issued, text, earlier in BANK:
    if only and not where.startswith(only): continue
    n+=1
    f=read(name,issued,text,earlier)
    if f!=events:
        bad+=1
        print(where.ljust(14), name.ljust(7), '+'.join(sorted(events)).ljust(18),'GOT','+'.join(sorted(f)).ljust(18), text[:150])
print(n,bad)
