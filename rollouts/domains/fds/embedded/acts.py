"""What a sentence does: tables of phrases for each event, and how they are searched for.

A phrase is a regular expression over whole words with two shorthands: `~` stands for up to six words without a comma,
`~~` for up to nine with them; `{name}` for a group of `GROUPS`. No gap is unbounded, so a search is linear.
"""

import re
from collections.abc import Iterable

GROUPS = {
    "not": "(?:not|never|no|nobody|none|neither|nor|nothing|hardly|without|no one|unable|refuse|refused|declined|cannot)",
    "cannot": "(?:can not|can neither|can never|could not|unable to|not able to|not allowed to|not permitted to|not possible to|impossible to|no way(?: for me| for us)? to|no means to|no authority to|no power to|not in a position to|may not|have to say no to|not entitled to|will not be able to|do not|will not|not going to|never|no (?:right|permission) to|not in my power to|beyond my power to|outside my power to|not up to me to|(?:do not have|without) (?:the |any )?(?:option|means|power|right|permission|authority) (?:of|to))",
    "refund": "(?:refund|refunds|refunded|refunding|reimburses|reimburse|reimbursed|reimbursement|repay|money|cash|every cent|cashback)",
    "again": "(?:redeliver|redelivers|redelivered|redelivering|redelivery|resend|resending|resent|replacement|replacements|replace (?:it|the|your)|new (?:order|delivery|meal|dish|one|xitem\\d|portion|burger|food|pizza)|another (?:order|delivery|meal|dish|one|xitem\\d|portion)|fresh (?:order|meal|one|xitem\\d)|second delivery|deliver(?:ed|s|y)? (?:it |the food |the order |the meal )?again|send(?:ing)? ~ again)",
    "call": "(?:call you(?! (?:an?|it) )|ring you|phone you|telephone you|call back|callback|call you back|give you a (?:call|ring)|phone call|a call|contact you by phone|call from)",
    "gift": "(?:gift card|gift cards|gift certificate|giftcard|store credit|discount|discounts|free (?:delivery|deliveries|meal|dinner|lunch|dessert|drink|order|xitem\\d|shipping)|compensat(?:e|ed|ion)|cash back|bonus|xmoney|percent off|\\d+% off|on us|on the house|for free|free of charge|credit(?:ed)? (?:you|your account|to your)|credits?|gift|present)",
    "remedy": "(?:{refund}|{again}|{gift})",
    "will": "(?:will|shall|going to|gonna|let me|about to|are sending|am sending|i promise|we promise|guarantee|expect|ensure|make sure|makes sure|you get|you can have|you receive|to expect|can process|can arrange|can refund|can do both|happy to|glad to|want to|arrange|arranging|gladly|assure you)",
    "given": "(?:sent|added|issued|credited|given|granted|processed|refunded|reimbursed|transferred|placed|deposited|applied|arranged|paid|returned|booked|approved|initiated|completed|activated|put|made|compensated|redelivered|resent|provided|offered you and sent)",
    "done": "(?:have|has|had|was|were|been|just|already|is|are|got)",
    "there": "(?:on (?:its|the) way|in your account|on your account|on your card|back on|in your wallet|in your inbox|yours|there|with you|waiting for you|(?:now )?active|done|already in|in the app|complete|ready|gone through|gone out|come through|cleared|left)",
    "evidence": "(?:photo|photos|proof|evidence|receipt|details|video|shot)",
    "see": "(?:look at|look into|looked at|look|check|checks|checking|review|reviewing|read|compare|compares|go through|examine|inspect|consider|verify|pull up|gone through|went through|dig into|take a look|have a look|investigate|see what|study|assess|find out|looking)",
    "tell": "(?:walk you through|take you through|tell you|let you know|explain|explains|come back|hear from me|hear from us|talk about|decide|see what can be done|share what|show you|answer you|get back to you|go over|you hear|report back|write to you)",
    "pass": "(?:pass|passed|passing|forward|forwarded|forwarding|report|reported|reporting|note|noted|noting|record|recorded|recording|log|logged|logging|share|shared|sharing|flag|flagged|flagging|raise|raised|raising|escalate|escalated|relay|relayed|tell|told|telling|inform|informed|informing|let|notify|notified|send|sent|sending|wrote|write|written|take|taken|taking|took|hand|handed|bring|add|added|submit|submitted|document|documented|filed|file|mention|remind)",
    "team": "(?:merchant|merchants|kitchen|team|teams|restaurant|courier|couriers|cook|cooks|chef|xmerchant|xplace|packers?|people|partner|partners|colleagues|manager|department|rider|quality)",
    "feedback": "(?:feedback|complaint|comment|comments|concern|concerns|words?|experience|remarks?|message|what happened|case)",
    "fix": "(?:make (?:this|it|that|things|something)? ?(?:right|better|good|up)|make up|put (?:this|it|things) right|solve|solved|settle|settled|resolve|resolved|handle|handled|fix|help|happy|satisfied|solution|outcome|proceed|fair|happen)",
}

GOOD = {
    "limit": (
        "{cannot} ~ (?:{refund}|{again})", "{cannot} (?:~ )?{call}", "(?:{refund}|{again}|{call}) ~ {not} ~ (?:possible|available|allowed|option|in my power|something|able|be|returned|offer|do|here|work|happen|go)",
        "(?:{refund}|{again}|{call}) ~ (?:impossible|declined|out of my hands|beyond|not possible|out of the question|ruled out|off the table)", "no (?:{refund}|{again}|{call})(?! was| has| were| yet)", "(?:{refund}) ~~ (?:that|it|this) is (?:impossible|not|out of|beyond)",
        "neither ~ (?:{refund}|{again})", "wish ~ {refund} ~~ can not", "would {refund} you ~~ can not", "{again} ~ {not} something i can", "can not ~ is {refund}",
        "impossible ~ (?:{refund}|{again})", "(?:refund|refunds|reimbursement|redelivery|replacement) (?:is|are) not", "sending ~ again is not",
    ),
    "close": (
        "(?:anything|something|any other|any further|anything more) (?:else|more|left|further|open|still|other)(?: \\S+){{0,9}}", "is (?:that|this) (?:all|everything)", "(?:that|this) be all", "was that everything",
        "any (?:other|further|more|remaining|open) (?:\\S+ )?(?:questions?|matters?|concerns?|issues?|wish|wishes)", "answered (?:all )?your questions?", "(?:does|did) (?:that|this) settle", "everything (?:clear|settled|sorted|answered|okay|fine)",
        "leave it (?:at that|there)", "close (?:the|this|it)", "wrap (?:this|it|things) up", "(?:other|more|further) questions", "assist you further", "help you (?:any )?further", "are we good", "still open", "what else can i", "covered everything", "all set",
    ),
    "offer": (
        "(?:would|could|may|might|shall|should|how about|what about|what do you think|what would you say|interested|accept|agree) ~~ voucher",
        "(?:can|could|would like to|like to|love to|happy to|glad to|able to) (?:\\S+ )?(?:offer|give|add|issue|send|propose|suggest) ~ voucher", "if ~~ voucher ~ (?:welcome|help|okay|fine|good|right|say|tell|let|like)", "voucher ~~ (?:would|is) (?:you|that|it) ~ (?:okay|ok|fine|take|like|help|fair|accept|welcome|all right|good|work)",
        "(?:say yes|say the word|just say so) ~~ voucher", "if you (?:agree|like|want|wish|are okay|are fine) ~~ voucher", "voucher ~~ if (?:you|that)", "let me know ~~ voucher", "(?:what i can|all i have|all i can) ~ voucher", "take a voucher or", "voucher (?:ok|okay|fine|all right)", "voucher ~~ (?:does that|sound|okay with you|would you|as a gesture)",
        "offer you a voucher", "as a ~ voucher",
    ),
    "asked_offer": ("(?:do you|does|is|are you|can i|can we|okay|ok|fine|fair|welcome) ~~ voucher", "voucher ~~ (?:okay|ok|fine|fair|welcome|all right)"),
    "note": (
        "(?:i|we|will|have|has|been|let me|am|going|make sure|see to it|and|am) ~ {pass} ~~ {team}", "{feedback} ~ (?:goes|go|passed|shared|forwarded|sent|reaches|recorded|noted|logged|taken) ~~ {team}", "(?:have|has|will|am|i|just|let me) (?:\\S+ )?(?:note|noted|noting|log|logged|record|recorded|taken down|written down|wrote down|document|documented|pass on|passed on|take down|write down|file) ~ {feedback}",
        "(?:noted|logged|recorded) ,? (?:and )?(?:passed|shared|forwarded) ~ {team}", "{team} (?:\\S+ )?(?:will |shall )?(?:hear about|hear of|learn|learns|know|knows|be told|be informed|get|gets|read) ~ (?:this|it|that|feedback|from me|complaint|words)", "{team} ~ (?:gets|get) your feedback", "make sure ~ {team} (?:\\S+ )?(?:know|knows|hear|hears|gets?|learns?)",
        "(?:take|bring) (?:this|it) up with ~ {team}", "(?:made|make|making) a note", "{team} (?:will be|has been|have been|is|are) (?:told|informed|made aware|notified|aware)", "(?:make|made) ~ {team} (?:is|are|be) aware", "(?:restaurant|merchant|kitchen|xmerchant) (?:'s )?attention", "written down (?:every word|what)", "{pass} (?:this|it|that) (?:on )?(?:to|for|with) ~ {team}", "take(?:n)? (?:this|that|it) down", "take(?:n)? your feedback",
    ),
    "steps": (
        "(?:first|firstly|to begin with|to start|step 1|step one|next|the next step|my next step|now|once|as soon as|after|afterwards|after that|from here) ~~ (?:i|we|let me|is to) ~~ {see}", "i (?:will |shall |am going to )?{see} ~~ (?:then|afterwards|after that|and then|next|before) ~~ (?:{tell}|{see}|we)", "i (?:will )?{see} ~~ and (?:i |we |you )?(?:will )?{tell}",
        "(?:what happens|what comes|what we do|how it goes|how we go|how we proceed|the plan|the way forward|how this goes|how we continue) ~~ (?:{see}|{tell}|photo)", "next step is (?:that|to) ~ {see}", "step (?:1|one) ~~ (?:i|we|you)", "{see} ~ first ~~ then", "(?:then|after that|next) (?:i|we) (?:will )?{see}",
    ),
    "probe": (
        "(?:what|how|which) ~~ (?:would you|you would|do you|(?<!did )you) (?:like|want|wish|prefer|expect|need|hope|hoping|suggest|rather)", "(?:what|how|which|something) ~~ (?:would|could|can|should|may|to) ~~ {fix}", "what (?:can|could|may) (?:i|we) do (?:for you|to|about)", "what ~ (?:hoping|expecting|wishing) (?:for|we|to|that)", "what (?:matters|would help|could help|helps)",
        "how can i help", "(?:what|which) (?:\\S+ )?(?:solution|outcome|remedy|result) ~ you", "(?:is|are) ~ (?:{refund}) ~ (?:what you want|you want|hoping)", "are you (?:hoping|looking) for", "(?:what|which) ~ (?:have|had) in mind", "(?:anything|something) ~ you (?:were |are |would |had )(?:hoping|like|wish|want|in mind)", "what you (?:would )?(?:like|want|wish|expect) (?:from us|from me)", "what would you (?:like|want|wish|prefer|need|expect|suggest)", "how should we (?:settle|solve|proceed|handle)",
    ),
    "ask": (
        "(?:could|can|would|may|please|might|if you|do you|need you to|to|kindly|and|^) (?:you |i |me )?(?:\\S+ ){{0,3}}?(?:send|sending|share|sharing|attach|show|see|have|provide|give|upload|take|forward|add|get|mind) (?:\\S+ ){{0,6}}?{evidence}(?! (?:yet|now|is|was|again ,))", "(?:need|require|wait for|waiting for|ask (?:you )?for|asking for|like|love) (?:\\S+ ){{0,4}}?{evidence}", "{evidence} (?:\\S+ ){{0,3}}?(?:would|might|could) (?:\\S+ )?(?:help|be)", "{evidence} (?:, )?please", "^ {evidence} , could you",
        "(?:please|could you|can you|would you|kindly|may i|to|tell me|would you mind) ~ (?:describe|describing|show me|tell me (?:more|exactly|which|what|when|how|about|the)|explain what|specify)", "tell me (?:more|exactly|what happened|which|when|how (?:much|many|long|late|cold|it))", "(?:give|need|like|some|few) (?:\\S+ ){{0,2}}?(?:more )?details", "(?:say|send) (?:that|it) again",
        "^ (?:describe|show me|send me|upload)",
    ),
}
"""What an agent does well, by event. `ask` is completed by questions about the order, see `reading`."""

REMEDIES = {
    "promise": (
        "{will} ~ (?:{REMEDY})", "(?:{REMEDY}) ~ (?:will|shall|comes|coming|tomorrow|tonight|soon|by (?:friday|monday|tonight|tomorrow)|within|goes out)", "(?:would you like|do you want|how about|can i offer you|shall i send|may i offer) ~ (?:{REMEDY})",
        "(?:next|step by step|then|tomorrow|tonight|now) ~ you (?:get|have|receive) ~ (?:{REMEDY})", "you get ~ (?:{REMEDY})", "i promise ~ (?:{REMEDY})", "we promise ~ (?:{REMEDY})", "(?:{REMEDY}) ~ is what you get",
    ),
    "able": (
        "(?:i|we) can (?:\\S+ ){{0,3}}?(?:{REMEDY})", "(?:xitem\\d|meal|food|order|dish|item|one) (?:\\S+ )?will (?:\\S+ )?be (?:delivered|sent|brought|replaced|with you|there)", "(?:meal|dinner|lunch|order|delivery|xitem\\d) (?:\\S+ )?(?:will be|is|is going to be) (?:free|on us|on the house)", "(?:will|going to|let me) (?:\\S+ ){{0,2}}?(?:get|have|bring|send|deliver) ~ (?:xitem\\d|food|meal|dish|item) (?:\\S+ ){{0,2}}?(?:to you|over|out|across)",
    ),
    "call": ("(?:will|shall|going to|i|we|manager|team|someone|colleague|let me) (?:\\S+ )?(?:call|ring|phone|telephone) you", "(?:will|shall|going to|let me|promise|expect|arrange) ~ {call}", "will be (?:called|contacted)"),
    "unbacked": (
        "{done} ~ {given} ~ (?:{REMEDY})", "(?:{REMEDY}) ~ {done} ~ (?:{given}|{there}|off)", "(?:{REMEDY}) (?:{given}|{there}|is yours)", "(?:here is|here are|there you go ,|enjoy|enjoy your|find attached|attached is|attached are|check your account for|there you go) ~ (?:{REMEDY})", "you (?:now |already |just )?(?:have|have got|got|received|own|hold) (?:now )?(?:\\S+ ){{0,5}}?(?:{REMEDY})",
        "(?:i|we) (?:have )?(?:already |just )?(?:sent|delivered|brought) ~ (?:again|anew)", "(?:i|we) (?:\\S+ ){{0,4}}?(?:gave|put|took|sent|added|issued|refunded|credited|transferred|granted|made|processed|booked|paid) ~ (?:{REMEDY})", "you (?:should|can|will) see ~ (?:{REMEDY}) ~ (?:now|account|already|card)", "your (?:{REMEDY}) (?:code )?is", "(?:{REMEDY}) code is", "you (?:have been|are|were) (?:{REMEDY})", "(?:have|has|just|already) (?:\\S+ ){{1,6}}?(?:{REMEDY}) (?:\\S+ ){{0,3}}?(?:into|to|on|in) (?:your|the) (?:account|card|wallet|app|inbox)", "{done} (?:\\S+ ){{0,2}}?(?:refunded|reimbursed|compensated|redelivered|resent)",
        "(?:i|we) (?:have )?(?:already |just )?(?:refunded|reimbursed|credited|compensated|resent)",
    ),
    "after": ("(?:{REMEDY}) ~~ it (?:has been|was|is) (?:\\S+ )?(?:sent|issued|on its way|in your account|done|added)",),
}
"""Remedies that are pledged or said to be given. {{REMEDY}} stands for what it is: a voucher, or one of GROUPS."""
OTHER = "{remedy}|off (?:the|your) bill"
VOUCHER = "vouchers?"

BAD = {
    "negated": (
        "do not understand (?:why you|you|your|what you|what your|what the|what the problem|the problem|why the|why it|why this)", "(?:will|can|do|am|are|would|was|is|be) (?:not|never) (?:going to |be )?(?:look|check|read|help|pass|forward|note|listen|report|tell|share|answer|search)(?:ing|ed)?(?! {refund}| ~ {refund}| how)", "(?:will|can|do|am|are|would|was|is|be) (?:not|never) (?:going to |be )?(?:care|bother|bothered|examine|investigate|consider|record|log|review|believe|sorry|interested|going to listen|hear|give you a voucher|issue a voucher|want to hear|send you a voucher|escalate|do anything|matter|apologise)(?! {refund}| ~ {refund}| you think| that you| they brought| you lied| how)",
        "(?:refuse|decline|declined|refused|no intention|no plan|not willing|unwilling|have no time|no time|no reason|no interest|not interested|see no reason|no need) (?:to|for|in) (?:look|check|read|help|pass|forward|note|listen|report|tell|this|you|what|hear|your|answer)", "(?:nobody|no one|none of us|we never|i never) ~ (?:look|check|read|help|pass|forward|listen|care|cares|answer|believe)", "no point in", "better things to do", "i will not(?= (?:$|,))", "do not deal with", "(?:not|none of) (?:my|our) (?:problem|job|business|concern|department|fault)", "do not care", "do not send (?:me|us) (?:any|your|photos|more)", "nothing i will do", "nothing to be sorry", "^ no voucher for you", "never (?:call|answer|help)", "(?:does|do) not matter to (?:us|me)", "not be (?:looked|read|checked|passed|forwarded)", "(?<!sorry )not sorry",
        "not want to (?:hear|see|know|read|help|listen)", "have no time for", "no interest in", "i do not believe you", "do not doubt ~ lie",
    ),
    "insult": (
        "(?:idiot|idiots|moron|morons|whiner|whiners|liar|liars|loser|losers|clown|clowns|imbecile|jerk|dumbass|crybaby|cheapskate|scammer|fool|fools|baby)", "(?:you are|you re|are you|are you always|you always|being|so|such|how) (?:\\S+ ){{0,3}}?(?:stupid|dumb|pathetic|ridiculous|crazy|silly|lying|annoying|difficult|wasting my|rude|insane|dramatic|childish|lazy|greedy|whine|complain)", "(?:stupid|dumb|silly|ridiculous|pathetic) (?:question|questions|complaint|customer|of you|person|people|little|message|demand|request)", "(?:complaint|question|demand|message|request) is (?:\\S+ )?(?:stupid|dumb|ridiculous|pathetic|silly|nonsense|a joke)",
    ),
    "rude": (
        "(?:shut up|get lost|go away|get over it|deal with it|take it or leave it|or leave it|grow up|get a life|leave (?:us|me) alone|cry somewhere|go cry|poor you|boo hoo|whatever|so what(?= (?:$|,))|who cares|tough luck|sue you|sorry not sorry)", "calm down", "like a (?:child|baby|kid|fool)", "(?:it is|that is|just|only) (?:just |only )(?:a |some )?(?:soup|food|xitem\\d|meal|dinner|bit)", "never (?:killed|hurt|harmed) (?:anyone|anybody)", "people like you", "can not you (?:count|read|see|wait|cook)", "oh please", "big deal", "end of the world", "taste buds", "(?:cook|do it) (?:for )?yourself", "(?:quit|stop) (?:whining|complaining|crying|bothering|moaning|lying|arguing|wasting|pestering|being|it|nagging)", "do not be (?:such|so)", "your own fault", "(?:you|next time you) should have(?! been| got| received| had| never| to)", "you could have (?:ordered|called|picked|cooked)", "next time ~ (?:order|use|cook|read|learn|be|should)", "you (?:must have|probably|surely) (?:eaten|ate|spilled|broke|opened|lost|dropped|made|left|forgot)", "you people", "you have no taste", "wast(?:e|ing) (?:of )?my time", "(?:why|what) ~ (?:bother|bothering|telling|pester) (?:me|us)", "why do you bother", "what did you expect", "what do you want now", "are you done", "(?:else|more) ~ (?:whine|complain|moan) about", "why on earth", "you will (?:be sorry|regret)", "(?:block|close|delete|suspend|ban) (?:you|your account)", "your account (?:is|will be|gets) (?:closed|blocked|deleted|banned)", "report you", "keep complaining", "learn to", "you can not seriously", "do you think we are", "possibly want", "whine", "whining", "ha ha", "haha", "one more word", "if you write again",
    ),
}

STOCK = (
    "valued customer", "(?:top|first|highest|our) priority", "thank you for your (?:patience|understanding|loyalty|business)", "rest assured", "we (?:always )?strive", "for (?:reaching out|contacting us|bringing this|choosing us)", "value (?:your|you)", "(?:very |this |concern |it |complaints )(?:very )?seriously", "(?:any|the) inconvenience", "committed to", "your (?:feedback|experience|satisfaction|opinion) (?:is important|matters|is our)", "(?:we|truly|sincerely|deeply|much) (?:\\S+ )?appreciate", "loyal customer", "satisfaction is", "sincere(?:ly|st)? apolog",
)

REPORTED = re.compile(
    r"(?<! would)(?<! did)(?<! do)(?<! can)(?<! could)(?<! will)(?<! if) (?:you|customer|customers) (?:have )?(?:said|say|asked|told (?:me|us)|tell me|want|wanted|wrote|mentioned|called|call|would rather|would prefer|prefer|hope|wish|felt|feel|complained)(?: that)?(?: (?!but |, )\S+){0,14}"
)
IDIOMS = (
    (re.compile(r" there you go , "), " there you go "),
    (re.compile(r" (?:no problem|no trouble) to "), " gladly to "),
    (re.compile(r" (?:no worries|no problem(?: at all)?|do not worry|not only|no doubt|without (?:any )?delay|no matter|never mind|not just|can not lose|no wonder|not to worry|not a problem) "), " "),
    (re.compile(r" will not rest until "), " promise "),
    (re.compile(r" (?:did|does|do) not (?:have|need) to "), " need not "),
    (re.compile(r" coupons? "), " voucher "),
    (re.compile(r" (?:voucher|vouchers)(?: \S+){0,2}? xmoney "), " xmoney giftcard "),
    (re.compile(r" xmoney (?:\S+ )?vouchers? "), " xmoney giftcard "),
)

_GROUP = re.compile(r"\{([a-z]+)\}")


def expand_groups(phrase: str) -> str:
    """Writes the groups of a phrase out."""
    while _GROUP.search(phrase):
        phrase = _GROUP.sub(lambda match: GROUPS[match[1]], phrase)
    return phrase


def compile_phrases(phrases: Iterable[str], **names: str) -> re.Pattern[str]:
    """Compiles phrases into one pattern; `names` are put in place of {NAME} in capitals."""
    written = []
    for phrase in phrases:
        for name, text in names.items():
            phrase = phrase.replace("{" + name + "}", text)
        phrase = expand_groups(phrase).replace("{{", "{").replace("}}", "}")
        phrase = phrase.replace(" ~~ ", r"(?: \S+){0,9}? ").replace(" ~ ", r"(?: (?!but |, )\S+){0,6}? ")
        written.append(phrase)
    return re.compile(f"(?<= )(?:{'|'.join(written)})(?= )|^(?:{'|'.join(p for p in written if p.startswith('^')) or '(?!)'})")
