"""Words that decide whether a full stop ends a sentence in official English."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TITLES = _words(
    """
    Adm Amb Arch Asst Atty Brig Brig.Gen Capt Cdr Cmdr Col Comm Cpl Dep Dr Drs Eng Fr Ft Gen Gov H.E H.H
    H.M H.R.H Hon Ing Insp Lt Lt.Col Lt.Gen Maj Maj.Gen Messrs Min Mlle Mme Mmes Mr Mrs Ms Msgr Mt Mx
    Nat Ph Pres Prof Rep Ret Rev Rt Rt.Hon Sec.Gen Sen Sgt Shri Smt Sr.Col St Ste Supt Vice-Adm hon rt
    """
)
"""Forms of address and places: a name follows, never a new sentence."""

LOUD_TITLES = frozenset(title.upper() for title in TITLES)
"""The same in transcripts: "MR. DAVIES: …"."""

NUMBERED = _words(
    """
    add ann annex app art arts ch chap cl corr doc docs fasc fig no nos op p para paras pp pt ref
    reg res resol rev sec secs ser subpara tab vol vols
    """
)
"""Followed by a number they stand inside a sentence: "No. 5", "Art. 3", "para. II"."""

MONTHS = _words(
    """
    apr aug dec feb jan jul jun mar nov oct sep sept
    """
)
"""Short months, followed by a day."""

NEVER_LAST = _words(
    """
    approx ca cf dept e.g esp est fn govt i.e ibid incl resp v viz vs
    """
)
"""Never the last word of a sentence."""

LATIN = _words(
    """
    al seq
    """
)
""""et al.", "et seq.": last only where a sentence plainly starts behind them."""

COMPANY = _words(
    """
    a.g b.a bros co corp d.phil esq etc inc jr llc ltd m.a m.d ph.d plc s.a sr
    """
)
"""Company forms, degrees, "etc.": often last."""

CLOCK = _words(
    """
    a.m am p.m pm
    """
)
"""Times of day."""

AFTER_CLOCK = _words(
    """
    April August BST Beijing Brussels CEST CET CT Central December Delhi EDT EST ET Eastern February
    Friday GMT Geneva Greenwich IST JST January July June Local London MSK March May Monday Moscow
    November October PT Pacific Paris Saturday September Sunday Thursday Tokyo Tuesday UTC Wednesday
    """
)
"""What goes on after "3 p.m."."""

STARTERS = _words(
    """
    A Additionally After Against All Also Although Among An And Another Any Are As At Because Before
    Between Both But By Can Concerning Consultations Could Delegations Despite Did Discussions Do Does
    During Each Earlier Either Every Finally Following For From Furthermore Given He Hence Her Here His
    How However I If In Is It Its Later Leaders Let Many May Meanwhile Ministers Moreover Most My
    Negotiations Neither Nevertheless No Nor Not Nothing Now Officials On One Only Or Other Our Over
    Participants Parties Please Regarding Relations She Should Since So Some Such Talks Thank Thanks
    That The Their Then There Therefore These They This Those Though Three Through Throughout Thus To
    Today Together Tomorrow Trade Two Under Until Upon Was We Were What When Where Which While Who Why
    Will With Within Without Would Yes Yesterday Yet You
    """
)
"""Words that, in capitals behind an abbreviation, begin a sentence ("in the U.S. The Minister")."""

LETTERED = _words(
    """
    annex appendix category class draft group hepatitis item level option part phase plan schedule
    section type variant vitamin zone
    """
)
"""Nouns that a single letter names: "Annex B.", "Option A"."""
