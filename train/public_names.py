"""Party and place names for the slots of published templates: real and invented, one list each.

>>> from communique.train.public_names import fill
>>> fill("{country_1} lifts its ban on fruit from {country_2}", "row 7")
'Meskovia lifts its ban on fruit from Greece'

About half the names are invented, so that a model that sees them cannot lean on what it knows of a country.
"""

from __future__ import annotations

import hashlib
import re

COUNTRIES = (
    "Argentina", "Australia", "Bangladesh", "Belgium", "Bolivia", "Brazil", "Canada", "Chile", "Colombia",
    "Denmark", "Ecuador", "Egypt", "Estonia", "Ethiopia", "Finland", "Georgia", "Ghana", "Greece", "Hungary",
    "India", "Indonesia", "Ireland", "Japan", "Jordan", "Kazakhstan", "Kenya", "Malaysia", "Mexico",
    "Mongolia", "Morocco", "Nepal", "Nigeria", "Norway", "Pakistan", "Peru", "Poland", "Portugal", "Qatar",
    "Senegal", "Serbia", "South Korea", "Sri Lanka", "Thailand", "Tunisia", "Turkey", "Uganda",
    "Uruguay", "Vietnam",
    "Aldoria", "Arvenia", "Belmark", "Bravonia", "Calderia", "Corvania", "Dalmora", "Drusland", "Elvaria",
    "Estmark", "Fendoria", "Galdovia", "Halvonia", "Ilmaria", "Istravia", "Jorvania", "Kalmeria", "Karvenia",
    "Kestria", "Lodovia", "Lumeria", "Marvonia", "Meskovia", "Nordalia", "Norvesia", "Ostravania", "Pellovia",
    "Quenland", "Ravenmark", "Rosdavia", "Sarvia", "Selvania", "Tarsonia", "Torvald Republic", "Ulmaria",
    "Valdoria", "Varnia", "Vesmark", "Westoria", "Yarvenia", "Zelmark", "Zorania",
)  # fmt: skip
CITIES = (
    "Accra", "Almaty", "Amman", "Antwerp", "Bogota", "Busan", "Cebu", "Dakar", "Gdansk", "Hanoi", "Izmir",
    "Kano", "La Paz", "Lahore", "Lima", "Mombasa", "Nagoya", "Porto", "Quito", "Rabat", "Tampere", "Tbilisi",
    "Adelmar", "Bresk", "Calvora", "Dornfeld", "Elmsport", "Farrowgate", "Gravesta", "Hollin", "Jarrowby",
    "Kessel Bay", "Lindmoor", "Morvane", "Nerrin", "Ostwick", "Port Sella", "Quarnholm", "Rastow", "Silvane",
    "Tolvar", "Umbria Falls", "Velmont", "Wendrow",
)  # fmt: skip
_SLOT = re.compile(r"\{(country|city)(?:_(\d))?\}")


def fill(template: str, seed: str) -> str:
    """The template with each slot filled, the same way for the same seed.

    Slots of one number get one name, slots of different numbers different names.
    """
    start = int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16)

    def name(slot: re.Match[str]) -> str:
        names = COUNTRIES if slot[1] == "country" else CITIES
        return names[(start + 37 * int(slot[2] or 0)) % len(names)]

    return _SLOT.sub(name, template)
