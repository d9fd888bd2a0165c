"""Who and what the bundled stories are about: the cast, the things, and the wordings every plot may use.

Texts here and in `story_plots` are templates; `stories` says how they are written and expanded.
"""

from __future__ import annotations

from dataclasses import dataclass

PRONOUNS = {
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
}


@dataclass(frozen=True)
class Character:
    """Someone who comes back in many stories, always with the same traits.

    `who` follows "was", `loves` follows "loved", `home` follows "lived", `joy` follows the name. None of
    them may hold a pronoun. `hand` is what this character takes things with.
    """

    name: str
    pronoun: str
    who: str
    loves: str = ""
    home: str = ""
    joy: str = ""
    hand: str = "hand"


HEROES = (
    Character(
        "Mia", "she", "a cheerful girl", "to paint pictures", "in a white house by the river", "laughed out loud"
    ),
    Character(
        "Ben", "he", "a careful boy", "to build things", "in a tall house on the hill", "grinned from ear to ear"
    ),
    Character("Lily", "she", "a gentle girl", "to sing", "in a little house near the forest", "began to sing"),
    Character("Sam", "he", "a lively boy", "to run", "in a blue house at the end of the lane", "jumped up and down"),
    Character(
        "Anna", "she", "a curious girl", "to read books", "in a brick house next to the school", "smiled a big smile"
    ),
    Character("Tom", "he", "a quiet boy", "to look at bugs", "on a small farm", "beamed with joy"),
    Character("Zoe", "she", "a bold girl", "to climb trees", "in a house with a green door", "shouted with joy"),
    Character("Max", "he", "a friendly boy", "to bake cookies", "in a house behind the bakery", "cheered loudly"),
    Character(
        "Bruno",
        "he",
        "a shy brown bear",
        "to pick berries",
        "in a quiet house in the forest",
        "did a slow, happy dance",
        "paw",
    ),
    Character(
        "Pip",
        "she",
        "a tiny gray mouse",
        "to tell stories",
        "in a tiny house under an oak tree",
        "gave a happy squeak",
        "paw",
    ),
    Character(
        "Fern",
        "she",
        "a clever red fox",
        "to ask questions",
        "in a stone house among the rocks",
        "laughed with delight",
        "paw",
    ),
    Character(
        "Hugo",
        "he",
        "a round little hedgehog",
        "to take naps",
        "in a small house at the foot of the hill",
        "rolled over with joy",
        "paw",
    ),
    Character(
        "Dot",
        "she",
        "a busy yellow duck",
        "to splash in puddles",
        "in a wooden house by the pond",
        "gave a happy quack",
        "wing",
    ),
    Character(
        "Oscar",
        "he",
        "a playful otter",
        "to slide in the mud",
        "in an old house on the river bank",
        "spun around with joy",
        "paw",
    ),
    Character(
        "Ruby", "she", "a fluffy white rabbit", "to dance", "in a warm house under the hill", "hopped with joy", "paw"
    ),
    Character(
        "Rex", "he", "a loyal spotted dog", "to dig holes", "in a red house by the mill", "barked with joy", "paw"
    ),
)

# Those who know what to do. They are asked for help, they are never the hero.
HELPERS = (
    Character("Grandma Rose", "she", "a kind old lady"),
    Character("Aunt Ivy", "she", "a merry lady with a big hat"),
    Character("Olga the owl", "she", "the oldest bird in the forest"),
    Character("Grandpa Joe", "he", "a kind old man"),
    Character("Farmer Ned", "he", "a strong man with a long beard"),
    Character("Gil the goat", "he", "the oldest goat on the farm"),
)

# One of each is drawn at the start of a story and stays the same to its end.
WORDS = {
    "toy": (
        "red ball", "little drum", "toy boat", "blue kite", "wooden horse", "yellow truck", "rag doll",
        "silver whistle", "orange train", "music box", "toy airplane", "jump rope", "stuffed lion",
    ),
    "treat": (
        "apple pie", "berry pie", "honey cake", "carrot cake", "plum cake", "nut cake", "pear tart",
        "cherry pie", "ginger cake", "apricot tart", "sweet bun", "cheese pie", "sweet pancake", "cherry cake",
    ),
    "critter": (
        "baby squirrel", "little frog", "young mole", "small lamb", "baby goose", "little turtle",
        "orange kitten", "baby deer",
    ),
    "color": ("red", "blue", "green", "yellow", "purple", "orange", "pink", "silver"),
}  # fmt: skip

# A fresh wording is drawn at every use, and none comes twice in one story while others are left.
PHRASES = {
    "meet": (
        "{hero} was {who} who loved {loves}.",
        "Once upon a time, there was {who} named {hero}. {He} lived {home}.",
        "{Who} named {hero} lived {home}. {He} loved {loves}.",
        "There once was {who} named {hero} who loved {loves}.",
        "{hero} was {who}. {He} lived {home}, and {he} loved {loves}.",
        "{hero} was {who} who lived {home}.",
        "In a little village lived {who} named {hero}. {He} loved {loves}.",
        "Once there was {who}. {His} name was {hero}, and {he} loved {loves}.",
        "This is a story about {hero}, {who} who loved {loves}.",
        "Everybody in the village knew {hero}, {who} who lived {home}.",
        "Do you know {hero}? {He} was {who} who loved {loves}.",
        "In the village, there was {who} named {hero}. What {he} loved most was {loves}.",
    ),
    "meet_friend": (
        "{His} best friend was {friend}, {friend.who}.",
        "{He} had a good friend named {friend}, {friend.who} who loved {friend.loves}.",
        "{hero} and {friend} were best friends. {friend} was {friend.who}.",
        "Nearly every day, {he} met {friend}, {friend.who}.",
        "{He} liked to be with {friend}, {friend.who} who loved {friend.loves}.",
        "{hero} often played with {friend}, {friend.who}.",
        "{hero} had a friend named {friend}. {friend} was {friend.who} who loved {friend.loves}.",
    ),
    "one_day": (
        "one day", "one morning", "one sunny morning", "one bright day", "one fine day", "one warm morning",
        "one quiet morning", "early one morning", "one lovely day", "one Sunday", "one fine morning",
        "on a bright morning", "on a quiet day", "on a Monday morning", "one cool morning",
    ),
    "search": (
        "under the bed", "behind the door", "in the big basket", "under the table", "on every shelf",
        "behind the chair", "in the kitchen", "under the blanket", "in the old box",
    ),
    "sad": (
        "{hero} felt very sad.", "{hero} wanted to cry.", "{hero} looked down and sighed.",
        "A tear rolled down {hero}'s nose.", "{hero}'s heart felt heavy.",
        "It made {hero} very sad.", "{hero} was close to tears.", "{hero} sat down and did not say a word.",
    ),
    "glad": (
        "{hero} {joy}.", "{hero} was so happy that {he} {joy}.", "{hero} felt happy and warm inside.",
        "{hero} smiled from ear to ear.", "{hero}'s eyes were bright with joy.",
        "{hero} could not stop smiling.",
        "Now {hero} was happy.",
        "How happy {hero} was!",
        "At that, {hero} {joy}.",
    ),
    "friends_end": (
        "{hero} and {friend} laughed all the way home.",
        "{hero} and {friend} walked home side by side.",
        "It was the best day {hero} and {friend} ever had.",
        "And the next day, {hero} and {friend} met again.",
        "When {hero} and {friend} said good night, they were tired and happy.",
        "{friends_after}",
        "{friends_after}",
    ),
    "friends_after": (
        "From that day on, {hero} and {friend} were even better friends.",
        "{hero} and {friend} talked about it for a long time.",
        "And {hero} and {friend} were happy.",
        "{hero} was glad to have a friend like {friend}.",
        "{friend} was glad to have a friend like {hero}.",
        "After that, {hero} and {friend} did everything together.",
    ),
    "night_end": (
        "That night, {hero} fell asleep with a smile.",
        "{hero} went to bed happy that night.",
        "When {hero} closed {his} eyes that night, {he} was still smiling.",
        "That night, {hero} had sweet dreams.",
        "{hero} told the moon all about it that night.",
        "It had been a long day, and {hero} slept very well.",
        "What a day it had been! {hero} thought about it for a long time.",
    ),
}  # fmt: skip
