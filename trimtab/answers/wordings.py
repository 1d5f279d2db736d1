"""Wordings: what may differ between two ways to ask one thing, as tables. English; what is in no table must agree.

Every row is a claim that the answer stays the same, whatever stands around it. A row that holds mostly does not belong here:
"the best way to" asks for more than "how do I", and "a wine glass" is no "glass of wine".
"""

from __future__ import annotations

import re
from typing import Final

CONTRACTIONS: Final = {
    "what's": "what is",
    "whats": "what is",
    "who's": "who is",
    "where's": "where is",
    "when's": "when is",
    "how's": "how is",
    "why's": "why is",
    "that's": "that is",
    "there's": "there is",
    "it's": "it is",
    "i'm": "i am",
    "i'd": "i would",
    "i've": "i have",
    "i'll": "i will",
    "you're": "you are",
    "you've": "you have",
    "we're": "we are",
    "we've": "we have",
    "they're": "they are",
    "can't": "can not",
    "cannot": "can not",
    "won't": "will not",
    "shan't": "shall not",
    "don't": "do not",
    "doesn't": "does not",
    "didn't": "did not",
    "isn't": "is not",
    "aren't": "are not",
    "wasn't": "was not",
    "weren't": "were not",
    "hasn't": "has not",
    "haven't": "have not",
    "hadn't": "had not",
    "couldn't": "could not",
    "shouldn't": "should not",
    "wouldn't": "would not",
    "mustn't": "must not",
    "needn't": "need not",
}

SAME: Final = {
    "e-mail": "email",
    "e-mails": "emails",
    "purchase": "buy",
    "purchasing": "buying",
    "purchased": "bought",
    "permitted": "allowed",
    "photo": "picture",
    "photos": "pictures",
    "photograph": "picture",
    "photographs": "pictures",
    "film": "movie",
    "films": "movies",
    "automobile": "car",
    "automobiles": "cars",
    "telephone": "phone",
    "cellphone": "mobile phone",
    "info": "information",
    "docs": "documentation",
    "config": "configuration",
    "repo": "repository",
    "repos": "repositories",
    "approx": "approximately",
    "percent": "%",
    "okay": "ok",
    "organisation": "organization",
    "organisations": "organizations",
    "favourite": "favorite",
    "licence": "license",
    "behaviour": "behavior",
    "whom": "who",
    "signup": "sign up",
    "setup": "set up",
    "login": "log in",
    "logon": "log on",
    "sign-up": "sign up",
    "log-in": "log in",
    "set-up": "set up",
    "on-line": "online",
    "web-site": "website",
    "wifi": "wi-fi",
    "kilometre": "km",
    "kilometres": "km",
    "kilometer": "km",
    "kilometers": "km",
    "kilogram": "kg",
    "kilograms": "kg",
    "gigabyte": "gb",
    "gigabytes": "gb",
    "megabyte": "mb",
    "megabytes": "mb",
    "terabyte": "tb",
    "terabytes": "tb",
}

_ASKING = r"(?=(?:what|who|whose|where|when|why|how|which)\b)"
"""Only before a question: "tell me a joke" is no way to ask "a joke", nor "hello world" to ask "world"."""

PREFACES: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?:hi|hello|hey|good morning|good afternoon|good evening)(?: there| all| everyone| team)?(?:[,!.]+ *| +"
        r"(?=(?:what|who|whose|where|when|why|how|which|can|could|please|is|are|do|does|i)\b))",
        r"(?:please|pls|kindly)\b[, ]*",
        r"(?:quick question|one question|just a question|just wondering|excuse me)[:,.!]+ *",
        rf"(?:i am|i was) (?:just )?(?:wondering|curious)[,:]? (?:if you (?:could|can) tell me )?{_ASKING}",
        r"(?:can|could|would|will) (?:you|someone|anyone|anybody|somebody) (?:please |kindly |possibly |maybe )?"
        rf"(?:tell|explain to|inform|remind) me[,:]? (?:please )?{_ASKING}",
        rf"(?:tell|inform|remind) me[,:]? {_ASKING}",
        rf"(?:do|would|does|might) (?:you|anyone|anybody|someone) (?:happen to )?know[,:]? {_ASKING}",
        rf"(?:any idea|do you have any idea)[,:]? {_ASKING}",
        rf"i (?:would like|want|need|wish|would love) to (?:know|find out|learn|understand)[,:]? {_ASKING}",
        r"(?:i have a question|i have got a question|here is my question)[:,.!]+ *",
        rf"(?:let me know|help me understand|may i ask|can i ask|could i ask|mind telling me)[:,]? {_ASKING}",
    )
)
"""What may stand before a question, and be left out."""

AFTERWORDS: Final = re.compile(
    r"[,.!?]+ *(?:please|pls|thanks|thank you|thanks a lot|many thanks|thank you very much|thanks in advance|thx|cheers|"
    r"do you know|can you tell me|could you tell me|any ideas?|i wonder)[ .!?]*$"
)
"""What may stand after one, and be left out; only after a stop: "how do I say thanks" is no way to ask "how do I say"."""

_HOW = "§how"
_ANY = r"(?:i|we|one)"

FORMS: Final = tuple(
    (re.compile(pattern), form)
    for pattern, form in (
        # how something is done
        (rf"^(?:how (?:do|can|could) {_ANY}|how to) (?:go about )?(?=\w)", f"{_HOW} "),
        (
            rf"^(?:what is|what are|what would be|show me|give me|explain) (?:the|a) (?:way|steps|procedure|process|method) "
            rf"(?:to|for|of) (?:{_ANY} to )?",
            f"{_HOW} ",
        ),
        (rf"^(?:in )?(?:what|which) way (?:do|can|could) {_ANY} ", f"{_HOW} "),
        (
            r"^(?:show me|explain|explain to me|teach me|i (?:want|need|would like) to know|i do not know|"
            r"help me (?:figure out|find out|with)|instructions on|instructions for|guide on|steps for) "
            r"how (?:to|i can|can i|do i) ",
            f"{_HOW} ",
        ),
        (r"^(?:steps|instructions) to ", f"{_HOW} "),
        # why
        (r"^how come ", "why "),
        (
            r"^(?:what is the reason|what are the reasons|what is the cause|for what reason|for which reason) "
            r"(?:that|why|for which|is it that|is it)? ?",
            "why ",
        ),
        (r"^why is it that ", "why "),
        # permission and possibility
        (
            rf"^(?:is it possible (?:for {_ANY} )?to|is there (?:a|any) way (?:for {_ANY} )?to|am i able to|are we able to|"
            r"would i be able to|will i be able to|would it be possible to|could i|could we|can we|can one) ",
            "can i ",
        ),
        (
            rf"^(?:is it allowed (?:for {_ANY} )?to|am i allowed to|are we allowed to|is it ok to|is it okay to|"
            r"am i permitted to|is it permitted to) ",
            "may i ",
        ),
        (
            rf"^(?:do i need to|do i have to|do we need to|do we have to|must we|am i required to|"
            rf"is it necessary (?:for {_ANY} )?to|"
            rf"is it required (?:for {_ANY} )?to|is it mandatory (?:for {_ANY} )?to) ",
            "must i ",
        ),
        # where
        (
            r"^(?:where (?:can|do|could) (?:i|we|you|one) (?:find|get hold of|locate|see)|"
            r"where (?:can|could|may) be found|in what place is|in which place is) ",
            "where is ",
        ),
        (r"^where (is|are) (.+?) (?:located|situated|to be found)$", r"where \1 \2"),
        (r"^where (?:can|could|may) (.+?) be found$", r"where is \1"),
        (r"^(?:what is|what are) the (?:location|whereabouts) of ", "where is "),
        (r"^at (?:what|which) (?:location|place) (is|are) ", r"where \1 "),
        # when
        (r"^(?:at|on) (?:what|which) (?:time and date|date and time) ", "when "),
        (r"^(?:at what|what|which) (?:point in )?time (?=does|do|is|are|will|did)", "§time "),
        (r"^(?:on )?(?:what|which) (?:date|day) (?=was|is|did|does|will)", "§date "),
        (r"^(?:in )?(?:what|which) year (?=was|did|were|is|will)", "§year "),
        (r"^(?:what is|what was) the (?:date of birth|birth date|birthdate|birthday) of (.+)$", r"§born \1"),
        (r"^(?:what is|what was) (.+?) of (?:date of birth|birth date|birthdate|birthday)$", r"§born \1"),
        (r"^(?:what is|what was) (?:the )?(?:date of birth|birth date|birthdate|birthday) of (.+)$", r"§born \1"),
        (r"^(?:§date was|on what date was) (.+?) born$", r"§born \1"),
        # meaning
        (r"^what (?:does|do) (.+?) mean$", r"§means \1"),
        (
            r"^(?:what is|give me|tell me|give|state|provide) the (?:meaning|definition) of (?:the (?:word|term) )?",
            "§means ",
        ),
        (
            r"^(?:define|how do you define|how would you define|how is) (?:the (?:word|term) )?(.+?)(?: defined)$",
            r"§means \1",
        ),
        (r"^(?:define|how do you define|how would you define) (?:the (?:word|term) )?", "§means "),
        (r"^what is meant by ", "§means "),
        # price
        (r"^how much (?:does|do) (.+?) cost(?: me)?$", r"§price \1"),
        (r"^(?:what does|what do) (.+?) cost(?: me)?$", r"§price \1"),
        (r"^(?:what is|what are) the (?:price|cost) (?:of|for) ", "§price "),
        (r"^how much (?:is|are|for) ", "§price "),
        # measures
        (
            r"^(?:what is|what was) the (?:number of people living in|number of inhabitants of|number of inhabitants in|"
            r"population of|population in|number of people who live in) ",
            "§population ",
        ),
        (
            r"^how many (?:people|inhabitants|persons) (?:live|are living|reside|are there|does) in (.+)$",
            r"§population \1",
        ),
        (r"^how many (?:people|inhabitants|residents) (?:does|do) (.+?) have$", r"§population \1"),
        (r"^(?:what is|tell me) the height of ", "how tall is "),
        (r"^how high is ", "how tall is "),
        (r"^(?:what is) the age of ", "how old is "),
        (r"^(?:what is) the (?:length) of ", "how long is "),
        (r"^(?:what is) the (?:weight) of ", "§weight "),
        (r"^how much (?:does|do) (.+?) weigh$", r"§weight \1"),
        (r"^how heavy (?:is|are) ", "§weight "),
        (r"^how (?:big|large) (?:is|are) ", "§size "),
        (r"^what is the (?:size) of ", "§size "),
        (r"^(?:what is the distance|how far is it|how far is the distance) ", "§distance "),
        (r"^(?:how many kilometers|how many kilometres|how many km) is it ", "§km "),
        # who
        (r"^who is the (?:author|writer) of ", "who wrote "),
        (r"^who (?:authored|was the author of|was the writer of) ", "who wrote "),
        (r"^(?:by who was|who was it that) (.+?) written(?: by)?$", r"who wrote \1"),
        (r"^who was (.+?) written by$", r"who wrote \1"),
        (r"^(?:who was|who is) the inventor of ", "who invented "),
        (r"^(?:by who was) (.+?) invented$", r"who invented \1"),
        (r"^(?:who was|who is) the (?:founder|founders) of ", "who founded "),
        (r"^by who was (.+?) founded$", r"who founded \1"),
        (r"^(?:who was|who is) the discoverer of ", "who discovered "),
        (r"^(?:who was|who is) the director of the movie ", "who directed the movie "),
        (r"^(?:who was|who is) the painter of ", "who painted "),
        # lists
        (r"^(?:give me|show me|provide|provide me with|make|write|name) (?:a|the) list of ", "§list "),
        (r"^(?:list|enumerate) (?:all (?:of )?the|all of|the) ", "§list all "),
        (r"^(?:list|enumerate) ", "§list "),
        # differences
        (
            r"^(?:how (?:do|does|is|are)|in what way (?:do|does)) (.+?) and (.+?) (?:differ|different)$",
            r"§differ \1 and \2",
        ),
        (r"^(?:what is|what are|explain|tell me|describe) the (?:difference|differences) between ", "§differ "),
        (r"^what happens (?:if|when) ", "§then if "),
        (r"^what (?:will|would) happen (?:if|when) ", "§then if "),
        # plain
        (r"^(?:what kind of|what sort of|which kind of|which sort of|what type of|which type of) ", "§kind "),
        (r"^(?:what are|what is) the (.+?) like$", r"§like \1"),
    )
)
"""Rows are tried in their order, on a question in small letters, each at most once."""

DROPPED: Final = frozenset({"the", "is", "are", "am", "of"})
"""Words without which a question asks the same, where the rest agrees in its order."""

YES_NO: Final = frozenset({"is", "are", "am", "do", "does"})
"""At the beginning, they ask for yes or no."""

JOINED: Final = re.compile(
    r"\b(?:a few|a little|a bit|at least|at most|no more than|no less than|more than|less than|fewer than|not all|"
    r"up to|each other|as well as|other than|rather than|such as)\b"
)

TWO_MEANINGS: Final = frozenset(
    """
    amazon angular apple april august bath beam bill box bush chase china chrome cook cork danish delta discover
    django docs drew drive edge excel express fire flask flink ford france frank galaxy gap go grant hive impala it
    jack japan java jersey kafka kindle lily linear maps march mark mars may mercury meta mobile next nice notion
    oracle orange pat pig pole polish presto prime python react reading rob rose ruby rust safari sage self sheets
    shell slack spark spring square storm stripe subway sue sun swede swift target teams tesla turkey us visa who
    will windows word zoom
    """.split()  # noqa: SIM905 (a list of words, a hundred lines long)
)
"""Words that mean one thing in small letters and another as a name: no question that differs in their case is the same."""
