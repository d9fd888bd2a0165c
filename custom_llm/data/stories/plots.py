"""The plots of the bundled stories. To add one, add a `Plot` to `PLOTS`.

A plot is a text that is read line by line:

    a line             one beat of the story: a sentence or a few
    | a line           another wording of the beat above
    ? a line           a beat that only half of the stories have
    an empty line      the next paragraph
    a backslash        at the end of a line, which then goes on in the next one
    [this|that]        one of the two (or more) is drawn
    {hero}             a slot: a name, a word, or a wording from `story_tables`
    {Hero}             the same slot, its first letter a capital

`{he}`, `{him}`, `{his}`, `{himself}` are the hero's pronouns and `{friend.he}` and so on the friend's. Write
them as slots, never as words. The friend and the helper are "she" where the hero is "he" and the other way
round, so a pronoun is always clear as long as friend and helper do not both get one. "a" becomes "an" by
itself. `cases` holds what must fit together: one case is drawn for a story and its entries become slots.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plot:
    """One course of events. `not_for` names those who would be wrong in it, as hero or as friend."""

    name: str
    text: str
    cases: tuple[dict[str, str], ...] = ({},)
    not_for: tuple[str, ...] = ()


LOST = Plot(
    "lost and found",
    cases=(
        {"memory": "I was feeding the fish", "there": "to the pond", "spot": "on a flat stone by the water"},
        {"memory": "I was picking apples", "there": "to the apple tree", "spot": "in the grass under the tree"},
        {"memory": "I sat down to rest", "there": "to the old bench", "spot": "right under the bench"},
        {"memory": "I was playing in the hay", "there": "to the barn", "spot": "on top of the hay"},
        {"memory": "I was watching the boats", "there": "to the bridge", "spot": "next to the wooden steps"},
        {"memory": "I stopped to smell the roses", "there": "to the garden", "spot": "among the roses"},
        {"memory": "I was hiding from the rain", "there": "to the mill", "spot": "behind the big door"},
    ),
    text="""
    {meet}
    {His} favorite thing was [a|an old] {toy}.
    | {He} had a {toy} and took it everywhere.
    | Of all {his} things, {he} liked {his} {toy} best.
    | {helper} had given {him} a {toy}, and {he} loved it dearly.

    But {one_day}, the {toy} was gone.
    | {One_day}, {hero} wanted to play, but {he} could not find the {toy}.
    | {One_day}, {hero} woke up and could not see the {toy} [anywhere|in its place].
    {He} looked {search}, but it was not there. {He} looked {search}. Nothing!
    | First {he} looked {search}. Then {he} looked {search}. The {toy} was not there.
    | Was it {search}? No. Was it {search}? No, it was not there.
    ? {sad}

    {His} friend {friend} came by. "What is wrong?" asked {friend}.
    | Just then, {hero}'s friend {friend} came by. "Why are you so sad?" asked {friend}.
    | There was a knock at the door. It was {hero}'s friend {friend}. "What are you looking for?" asked \
      {friend}.
    "My {toy} is lost," said {hero}. "I have looked everywhere."
    | "It is my {toy}," said {hero}. "It is not in its place, and I miss it so much."
    | "I cannot find my {toy}," said {hero} [in a small voice|with a sigh].
    | "I have lost my {toy}," said {hero}, "and I do not know where."
    "[Try to remember|Let us think]," said {friend}. "[Where|When] did you see it last?"
    | "Close your eyes and think," said {friend}. "What did you do yesterday?"
    | {friend} thought for a moment. "Where did you go yesterday?"
    {hero} thought [hard|and thought]. "{memory}!" {he} [said|cried] at last. "I put it down there!"
    | "Yesterday," said {hero} slowly, "{memory}. Oh! I must have left it there!"

    They ran {there} [together|as fast as they could|at once]. There was the {toy}, {spot}[!|.]
    | {friend} took {him} by the {hand}, and they went {there}. There it was, {spot}. The {toy}!
    | So they went {there} and looked around. "I see it!" called {friend}. The {toy} was {spot}.
    | They hurried {there}. And what did they see {spot}? The {toy}!
    {glad}
    "Thank you, {friend}," said {hero}. "[You helped me to remember|You are a good friend|I am so glad you \
      came by]."
    ? They played with the {toy} [until it was time to go home|all day long].
    | They played with it all afternoon, and it was even more fun than before.
    From then on, {hero} always put the {toy} [back in its place|away before bed].
    | {hero} learned that a thing is easy to find when it has a place of its own.
    | {hero} [never left|did not leave] the {toy} outside again.
    | That night, the {toy} was safe next to {his} bed.
    """,
)

PROMISE = Plot(
    "a promise",
    cases=(
        {
            "chore": "feed the hens",
            "need": "They are always hungry in the evening",
            "done": "gave the hens corn and fresh water",
            "well": "the hens were asleep with full bellies",
            "reward": "a basket of brown eggs",
        },
        {
            "chore": "water the beans",
            "need": "The sun is hot and they are thirsty",
            "done": "carried water to every bean in the garden",
            "well": "the beans stood fresh and green",
            "reward": "a bowl of sweet peas",
        },
        {
            "chore": "bring in the wood",
            "need": "It may rain tonight",
            "done": "carried all the wood into the house",
            "well": "the wood was dry and the rain was falling outside",
            "reward": "a cup of hot milk by the fire",
        },
        {
            "chore": "close the gate for the sheep",
            "need": "They run away when it is open at night",
            "done": "led the sheep home and closed the gate",
            "well": "all the sheep were safe in the yard",
            "reward": "a soft ball of wool",
        },
        {
            "chore": "take in the washing",
            "need": "It gets wet when night comes",
            "done": "folded every shirt and sock",
            "well": "the washing was dry and clean",
            "reward": "a big slice of {treat}",
        },
    ),
    text="""
    {meet}
    {One_day}, {helper}, {helper.who}, had to go to town. "Can you {chore} for me today?" {helper} asked \
      {him}.
    | "I need your help today," said {helper} {one_day}. "Can you {chore} before it gets dark?"
    | {One_day}, {helper} asked {hero} for help. "I must go to town. Will you {chore} while I am away?"
    "Yes, I promise," said {hero}.
    | "You can count on me," said {hero}. "I promise."
    | "Of course," said {hero}. "You have my promise."
    | {hero} was proud to be asked. "I will do it. I promise!"
    ? "Please do not forget," {helper.he} said. "{need}."

    [On the way|A little later], {hero} met {his} friend {friend}. "Come and play [by the river|on the \
      hill|in the forest] with me!" said {friend}.
    | Then {his} friend {friend} came along. "I know a new game," said {friend}. "Come and play!"
    They [ran and jumped|played and laughed|played one game after another] until the sun was low.
    | They climbed on rocks and rolled down the hill. How quickly the time went by!
    | First they played one game. Then they played another. Soon the day was almost over.
    | The two friends had so much fun that they did not see the sun go down.
    Then {hero} [stopped and stood still|opened {his} eyes wide]. "Oh no! I promised to {chore}!"
    | But what was that in the back of {his} head? "My promise!" cried {hero}. "I must {chore}!"
    | All at once, {hero} remembered. "My promise! I have to {chore}!"
    ? "You can do it tomorrow," said {friend}. But {hero} shook {his} head. "No. A promise is a promise."
    | "But our game is not over," said {friend}. "My promise comes first," said {hero}.
    "[Then I will help you|Let us do it together|Two are faster than one]," said {friend}, and they ran \
      [all the way|as fast as they could].
    Side by side, they {done}.
    | {hero} and {friend} {done}, just before it got dark.
    | They did not stop to rest. They {done}.

    When {helper} came home, {well}.
    "I almost forgot," said {hero}. "I am sorry."
    | "I have to tell you something," said {hero}. "I nearly forgot my promise."
    | {hero} told the truth. "I almost forgot my promise," {he} said.
    "But you [kept your word|remembered in time]," said {helper} with a smile, "and that is what matters."
    | "It is good to say yes," said {helper}, "and it is even better to do it. You did both."
    | "You came back and did it," said {helper}. "That is what a promise means."
    And {helper.he} gave {hero} and {friend} {reward}.
    | To say thank you, {helper.he} gave them {reward}.
    ? {friends_end}
    | {night_end}
    """,
)

SHARING = Plot(
    "sharing",
    cases=(
        {"mishap": "fell into the pond", "later": "lost a mitten on a cold day", "gift": "a warm mitten"},
        {"mishap": "fell into the mud", "later": "forgot to bring a book to school", "gift": "half of a big book"},
        {"mishap": "was still on the kitchen table", "later": "had no hat in the hot sun", "gift": "a big straw hat"},
        {"mishap": "was eaten by a goose", "later": "had no umbrella in the rain", "gift": "half of a big umbrella"},
        {"mishap": "rolled down the hill", "later": "was thirsty after a long walk", "gift": "half a cup of milk"},
    ),
    text="""
    {meet} {meet_friend}
    {One_day}, {hero} had a {treat} for lunch. It smelled [so good|sweet and warm].
    | {One_day}, {hero} sat down under a tree. {He} had a {treat} in {his} bag.
    | {One_day}, {helper} gave {hero} a {treat}. It was [still warm|round and sweet].
    | {One_day}, {hero} took a {treat} up the hill for lunch. [It smelled wonderful.|It was {his} favorite.]

    {friend} sat down next to {him}. {Friend.he} had nothing to eat. "My lunch {mishap}," said {friend} sadly.
    | {friend} came along the path with an empty bag. "My lunch {mishap}," {friend.he} said, and sat down \
      in the grass.
    | There {hero} saw {friend}, who looked hungry and sad. "My lunch {mishap}," {friend.he} said.
    {hero} looked at the {treat}. [It was not very big.|{He} was hungry too.] {He} wanted to eat it all [by \
      {himself}|alone].
    | "If I share, there will be less for me," thought {hero}. {He} held the {treat} close.
    | It was a nice {treat}, and {hero} did not want to give any of it away.
    {hero} took a bite. But it did not taste as good as it smelled, because {friend} was so sad.
    | For a while, nobody said a word. {hero} did not like to see a friend so sad.
    | {He} took one bite. Then {he} heard {friend}'s belly rumble, and the bite was hard to swallow.
    | Then {he} looked at {friend}'s sad face, and {his} own heart felt heavy.

    "Here," said {hero}, and broke the {treat} in two. "[One half is for you|We can share it]."
    | {hero} cut the {treat} in half. "[Please take this|This half is yours]," {he} said.
    | "Half for you and half for me," said {hero} at last, and broke the {treat} in two.
    "[Thank you|Oh, thank you]!" said {friend}, and [{friend.his} eyes began to shine|{friend.he} \
      {friend.joy}].
    They ate [side by side|in the sun], and [now it tasted better than ever|not one crumb was left].
    | They shared every last crumb, and {friend} was sad no more.
    | Two friends and one {treat}. That was the best lunch of the week.
    ? "It is funny," said {hero}. "A half tastes better than a whole."

    Some [days|weeks] later, it was {hero} who {later}. {friend} did not wait. {Friend.he} gave {him} {gift}.
    | Not long after, {hero} {later}. And who came to help? It was {friend}, with {gift} for {him}.
    "You shared with me," said {friend}, "so now I share with you."
    | "I did not forget how you helped me," said {friend}.
    | "Friends share," said {friend} with a smile.
    {friends_after}
    | {glad}
    """,
)

STORM = Plot(
    "a storm",
    cases=(
        {"shelter": "an old barn", "inside": "It was dry inside, and it smelled of hay"},
        {"shelter": "a small cave", "inside": "It was dark inside, but it was dry"},
        {"shelter": "the old mill", "inside": "The rain drummed on the roof, but they were dry"},
        {"shelter": "a little wooden hut", "inside": "There was just enough room for two"},
        {"shelter": "a hollow tree", "inside": "It was a tight fit, but not one drop came in"},
    ),
    text="""
    {meet} {meet_friend}
    One [warm|hot] afternoon, they went to the [meadow|hill|forest] to [pick flowers|look for berries|fly a \
      kite].
    "Take this blanket with you," said {helper}. "[It may get cold|You never know]."
    | {hero} took [a blanket|an old blanket] along. "Why do you need that?" asked {friend}. "You will see," \
      said {hero}.

    [After a while|Soon], the sky [turned gray|grew dark]. The wind began to [blow|howl], and [big drops \
      fell|it started to rain].
    | The day was still and warm. Then, from far away, they heard the thunder. Soon the rain came down.
    | Then a big black cloud covered the sun. The wind pulled at the trees, and rain began to fall.
    Boom! went the thunder. {friend} [jumped|began to shake]. "I am scared," {friend.he} [said|cried].
    | "What was that?" asked {friend}. Boom! There it was again. {Friend.he} held on to {hero}.
    | A bright flash lit up the sky. "I want to go home!" cried {friend}.
    "We cannot run home in this storm," said {hero}. "But look over there!" They ran to {shelter}.
    | {hero} took {friend} by the {friend.hand}. "I know a dry place," {he} said, and they ran to {shelter}.
    | {hero} looked around and saw {shelter}. "In here, quick!" {he} cried.
    {inside}.

    {hero} put the blanket around {friend}. "Let us [sing|count to one hundred|tell a funny story]," {he} \
      said. "Then we will not hear the thunder."
    | "Come under the blanket," said {hero}. "It is our own little house, and no storm can get in."
    | They sat close together under the blanket. "Tell me a story," said {friend}. So {hero} told one about \
      a cloud that wanted to be a sheep.
    | "I am a little scared too," said {hero}, and put the blanket around them both. "But we are together."
    Boom! went the thunder again, but now it did not sound so loud.
    | "Boom!" said {friend} to the thunder, and {friend.he} was not so scared anymore.
    | Little by little, {friend} stopped shaking. {Friend.he} even laughed.
    ? Outside, the wind blew and blew. Inside, they were warm.

    At last, the rain stopped. A rainbow stood over the [hills|trees], [red, yellow, green, and blue|bright \
      and wide].
    | Little by little, the storm went away. Drops fell from the trees, and a bird began to sing.
    | Then it was quiet. The sun came out, and every leaf was shining.
    "[The storm is over|We did it]!" said {friend}. "Thank you for [the blanket|staying with me]."
    | "That was not so bad," said {friend}, "because you were with me."
    | "I am glad that we had the blanket," said {friend}. "And I am glad that I had you."
    ? They jumped over every puddle on the way home.
    {friends_after}
    | From then on, they were not so scared of thunder.
    """,
)

RACE = Plot(
    "a race",
    cases=(
        {"trouble": "stuck in the mud", "free": "pulled it out of the mud"},
        {"trouble": "caught in a bush", "free": "held the branches apart until it was free"},
        {"trouble": "sitting alone and crying for its mother", "free": "carried it to its mother"},
        {"trouble": "stuck between two stones", "free": "pushed the heavy stone to the side"},
    ),
    text="""
    {meet}
    Every [spring|summer], there was a [big|great] race in the village. The winner got a {treat}.
    | "The big race is on Sunday," said {hero}. "The winner gets a {treat}!" {He} could think of nothing else.
    | Soon there would be a race around the village. The prize was a {treat}.
    {hero} wanted to win [very much|more than anything]. {He} ran [up and down the hill|along the river] \
      every day.
    | "This time I want to win," said {hero}, and {he} ran a little every day.

    "Ready, set, go!" called {helper}. [Off they went!|They all ran as fast as they could.]
    | "On your marks," called {helper}. "Go!" And all of them ran down the road.
    | {helper} waved a flag, and the race began.
    Soon {hero} was in front. Only {friend}, {friend.who}, was close behind {him}.
    | First came {hero}, and then came {his} friend {friend}. The others were far behind.
    | {hero} ran like the wind. {He} could hear {his} friend {friend} right behind {him}.
    Then {hero} heard a small cry. A {critter} was {trouble}.
    | All at once, {hero} heard a sad little voice. It was a {critter}. It was {trouble}.
    | But what was that? By the side of the road, {he} saw a {critter}. It was {trouble}.
    "If I stop, I will lose," thought {hero}. But the {critter} looked [so small|so scared].
    | What should {he} do? It was not far to the end of the race. But nobody else had seen the {critter}.
    | {hero} looked at the road. Then {he} looked at the {critter}.
    ? "Do not stop!" called someone. "You can win!"

    {hero} stopped. "[Do not be afraid|I will help you]," {he} said, and {he} {free}.
    | "A race is only a race," said {hero}. {He} stopped and {free}.
    | {He} turned around at once. {Hero} {free}, and the {critter} was safe.
    {friend} ran past and came in first. {hero} came in last.
    | When {hero} came to the end of the road, the race was over. {friend} had won.
    | By then, all the others had run past. {friend} won the race, and {hero} was the last one of all.
    ? {sad}

    But {friend} had seen it all. "I won the race," said {friend}, "but {hero} has the biggest heart. We \
      will share the prize."
    | "I was faster today," {friend} told everyone, "but {hero} did something better." And {friend} cut the \
      {treat} in two.
    | "Why were you so slow?" asked {helper}. {hero} told the whole story. "Then this is for both of you," \
      said {friend}, and cut the {treat} in two.
    [Everyone clapped.|{glad}]
    ? The {critter} sat next to {hero} and got a crumb, too.
    To help is better than to win.
    | "I would do it again," said {hero}, and everyone knew that it was true.
    | {hero} did not win the race that day, but {he} won a friend.
    | {night_end}
    """,
)

GIFT = Plot(
    "making a gift",
    cases=(
        {
            "gift": "a picture of the garden",
            "verb": "paint",
            "first": "the paint ran down the paper",
            "fix": "used less water",
            "use": "hung it over the fire where everyone could see it",
        },
        {
            "gift": "a warm scarf",
            "verb": "make",
            "first": "the wool was full of knots",
            "fix": "went slowly, one row at a time",
            "use": "put it on and wore it all day",
        },
        {
            "gift": "a wooden spoon",
            "verb": "make",
            "first": "the wood broke in two",
            "fix": "took a stronger piece of wood",
            "use": "stirred the soup with it that very evening",
        },
        {
            "gift": "a bird house",
            "verb": "build",
            "first": "the roof fell off",
            "fix": "used longer nails",
            "use": "hung it in a tree, and soon two birds moved in",
        },
        {
            "gift": "a honey cake",
            "verb": "bake",
            "first": "the cake was as hard as a stone",
            "fix": "read the recipe again with care",
            "use": "ate three big slices",
        },
        {
            "gift": "a flower pot",
            "verb": "paint",
            "first": "all the colors ran together into gray",
            "fix": "let each color dry before the next",
            "use": "put a red flower in it at once",
        },
    ),
    text="""
    {meet}
    Next door lived {helper}, {helper.who}. Soon it would be {helper}'s birthday. {hero} wanted to give \
      {helper.him} something [special|nice], but {he} had no money.
    | {helper}'s birthday was near, and {hero} had no gift yet. {He} looked in {his} money box. It was empty.
    ? "What can I give?" {he} asked {himself}.

    "Why do you not make something?" said {his} friend {friend}. "A gift from your own {hands} is the best \
      gift."
    | "Love is the best gift," said {his} friend {friend}. "Can you make something with love?"
    | {He} asked {his} friend {friend}. "You could make a gift yourself," said {friend}.
    "I know!" said {hero}. "I will {verb} {gift}!"
    | {hero} walked up and down. Then {he} had an idea. "I will {verb} {gift}!" {he} said.
    | {hero} thought for a while. "I will {verb} {gift}," {he} said.
    {He} worked all [morning|afternoon]. But {first}. "Oh no," said {hero}. "It is [no good|all wrong]."
    | At first, it looked easy. But {first}. {hero} looked at it and sighed.
    | {He} started right away. But it was not easy, and {first}.
    ? {sad}
    "[Do not give up|Try again]," said {friend}. "The first try is for learning."
    | "Now you know how not to do it," said {friend} with a smile. "So do it another way."
    | "That was only the first try," said {friend}. "I will stay with you."
    So {hero} tried again. This time {he} {fix}. [It took a long time.|{He} did not hurry.] And it worked!
    | "One more time," said {hero}. {He} {fix}, and it was just right.
    | {hero} took a deep breath and began again. {He} {fix}, and [little by little|bit by bit] it came out \
      right.

    On the birthday, {hero} [held out|brought] the gift with [a red face|a big smile]. "I made it myself," \
      {he} said.
    | When the day came, {hero} knocked at {helper}'s door. "Happy birthday," {he} said. "I made this for \
      you."
    | Then the big day came. "Happy birthday, {helper}!" said {hero}. "This is for you. I made it myself."
    "[It is beautiful|How lovely]!" said {helper}. "[I will always keep it|Nobody has ever made me such a \
      nice gift]."
    | {helper} opened {helper.his} eyes wide. "Did you make this? For me?" {helper.he} asked.
    | {helper} looked at it for a long time. "This is the best gift of all," {helper.he} said.
    {Helper.he} {use}.
    {glad}
    | It had cost no money at all, only time and love.
    | {night_end}
    """,
)

DARK = Plot(
    "afraid of the dark",
    cases=(
        {"noise": "Tap, tap, tap", "cause": "a branch that tapped on the window in the wind"},
        {"noise": "Scratch, scratch", "cause": "a kitten that wanted to come in"},
        {"noise": "Whoo, whoo", "cause": "the wind that blew over an empty bottle"},
        {"noise": "Drip, drip, drip", "cause": "water that dripped from the roof into a bucket"},
        {"noise": "Flap, flap, flap", "cause": "a shirt that somebody had left on the line"},
        {"noise": "Bump, bump", "cause": "a gate that somebody had forgotten to close"},
    ),
    not_for=("Zoe",),
    text="""
    {meet}
    {hero} liked [the day|the sun], but {he} did not like the night. {He} was afraid of the dark.
    | But there was one thing {hero} did not like. {He} did not like the dark.
    | In the daytime, {hero} was happy. But when it got dark, {he} was afraid.

    One night, {hero} lay in bed. {noise}! [What was that?|Something was outside!]
    | It was late. The house was still. And then, there it was. {noise}!
    | The wind blew around the house that night. {noise}! {hero} was awake at once.
    | One evening, the light was out and {hero} was almost asleep. {noise}! {He} sat up in bed.
    {He} pulled the blanket over {his} head. "{noise}!" it went again.
    | {hero} held {his} breath and did not move. {noise}! It did not stop.
    | {His} heart beat fast. "Who is there?" {he} called. But there was no answer. {noise}!
    ? "It must be a monster," thought {hero}, "with big teeth and a long tail."
    "Help!" {he} cried. {helper} came in with a lamp. "What is the matter?" asked {helper}.
    | {hero} called for {helper}, who was still awake. {helper} came with a lamp and sat down on the bed.
    | "Is somebody there?" called {hero}. The door opened, and there stood {helper} with a little lamp.

    "There is a monster outside," said {hero} [softly|and held the blanket tight].
    | "Do you hear it?" asked {hero}. "It wants to come in!"
    | "I heard a noise," said {hero}. "The dark is full of monsters."
    "[Then let us look at it|Let us go and see]," said {helper}. "Take the lamp. I will hold your {hand}."
    | {helper} did not laugh. "When I am afraid of something, I look at it," {helper.he} said. "Come, you \
      can carry the lamp."
    Step by step, they went outside. {hero} held up the lamp. It was only {cause}!
    | They walked around the house with the lamp. {noise}! Now {hero} could see it. It was {cause}!
    | {hero} took a deep breath and opened the door. {He} lifted the lamp and looked. There was no monster. \
      There was only {cause}.
    [{hero} had to laugh.|"That is all?" said {hero}, and {he} began to laugh.]
    | "So it was you!" said {hero}. It was not scary at all.
    ? "The dark has the same things in it as the day," said {helper}. "You just cannot see them."
    "Now look up," {helper.he} said. The sky was full of stars. "You can only see them when it is dark."
    | High above the roof, the moon was shining. "You see," said {helper}, "the night has a lamp of its own."
    | Then {he} saw the stars. There were so many of them! "Without the dark, there are no stars," said \
      {helper}.

    {hero} went back to bed. The lamp stood by the window, but soon {he} did not need it.
    | After that, {hero} slept with the window open, so that {he} could see the stars.
    | Back in bed, {hero} heard it again. "{noise}," {he} said with a smile, and fell asleep.
    ? The next morning, {he} told {his} friend {friend}, "I am not afraid of the dark anymore."
    """,
)

VISITOR = Plot(
    "a visitor",
    cases=(
        {"care": "a bowl of warm soup", "clue": "pointed at the hill", "family": "on the other side of the hill"},
        {"care": "a cup of warm milk", "clue": "pointed at the river", "family": "on the bank of the river"},
        {"care": "bread and butter", "clue": "pointed at the forest", "family": "under a tall tree"},
        {"care": "a sweet baked apple", "clue": "pointed at the farm", "family": "behind the barn"},
    ),
    text="""
    {meet}
    One [rainy|dark and rainy] evening, {he} heard a knock at the door.
    | It was [a rainy night|a night full of wind]. {hero} was just going to bed when {he} heard a knock at \
      the door.
    | One [cold|windy] evening, {hero} was sitting by the fire. There was a knock at the door.
    "Who can that be?" said {hero}. {He} opened the door. There stood a {critter}, [cold|wet] and tired.
    | {hero} opened the door just a little. Outside stood a {critter}. It was [shaking|shaking all over].
    "[I am lost|I lost my way]," said the {critter} in a tiny voice. "May I come in?"
    | "Please," said the {critter}, "I cannot find my way home."

    {hero} did not know the {critter}. But {he} could see that it was [cold|scared].
    | {hero} felt sorry for the little one. {He} knew what it was like to be cold.
    | {hero} had only one chair and one blanket. But that did not matter.
    "Come in[| and sit by the fire]," {he} said, and gave it {care}.
    | "Of course! Come in," said {hero}. {He} put a blanket around the {critter} and brought it {care}.
    ? The {critter} ate it all and felt much better.
    Soon it was warm, and it fell asleep [in front of the fire|in {hero}'s chair].
    | They talked about this and that until the {critter} closed its eyes and slept.
    | {hero} sang a quiet song, and the {critter} fell asleep.

    The next morning, the sky was clear. "Now let us find your family," said {hero}.
    | When the sun came up, {hero} put on {his} hat. "Today we will find your mother," {he} said.
    | In the morning, {his} friend {friend} came by. "Let us find its family together," said {friend}.
    {hero} asked the {critter} about its home. It {clue}.
    | But where did the {critter} live? It {clue}.
    They walked and called, walked and called. At last, somebody called back. There was the mother, {family}!
    | It was a long walk, and {hero} carried the {critter} when it was tired. At last, they found the \
      mother {family}.
    | So they went that way. And there, {family}, the mother was looking for the little one.
    The {critter} ran to its mother. [They both cried and laughed.|The mother held it for a long, long time.]
    | "Mama!" cried the {critter}, and [it ran as fast as it could|then there were many hugs and kisses].
    "Thank you for being so kind," said the mother. "You did not even know us."
    | "How can I thank you?" asked the mother. "Just come and see me again," said {hero}.
    | "You opened your door," said the mother. "I will never forget that."

    After that, there was often a little knock at the door, and {hero} knew who it was.
    | When winter came, the {critter} and its mother brought {hero} a bag of nuts.
    | From that day on, the {critter} came to visit every [week|Sunday].
    | And so {hero} had a new friend, just because {he} had opened the door.
    """,
)

GARDEN = Plot(
    "a garden that would not grow",
    cases=(
        {"plant": "sunflower", "plants": "sunflowers", "end": "It grew taller than the door"},
        {"plant": "pumpkin", "plants": "pumpkins", "end": "It grew so big that two had to carry it"},
        {"plant": "bean", "plants": "beans", "end": "It climbed up to the window"},
        {"plant": "carrot", "plants": "carrots", "end": "It was long and sweet"},
        {"plant": "tomato", "plants": "tomatoes", "end": "It was round and red"},
        {"plant": "strawberry", "plants": "strawberries", "end": "It was red and sweet as sugar"},
    ),
    text="""
    {meet}
    One [day|morning] in spring, {helper}, {helper.who}, gave {him} [a bag of|some] seeds. "These are \
      {plants}," said {helper}.
    | It was spring, and {hero} wanted to grow {plants}. {helper} gave {him} some seeds.
    {hero} made little holes in the ground and put [the seeds in|one seed in each].
    | {He} put the seeds into the ground, one by one, and covered them with earth.
    | {hero} dug and dug, and put the seeds into the [brown|soft] earth.
    ? "Grow quickly!" {he} told them.

    The next day, {he} ran outside. There was nothing to see. The day after, there was still nothing.
    | One day went by, and two, and three. The ground was as brown as before.
    | Every morning, {he} looked at the ground. There was [no leaf at all|not one green leaf].
    {He} sang to the seeds. Nothing came up. {He} read them a story. Nothing came up.
    | "Maybe they are cold," said {hero}, and put {his} blanket over the ground. But nothing grew.
    | "Maybe they are asleep," said {hero}. {He} played the drum for them. But nothing grew.
    | {He} danced around the garden and called, "Wake up!" But the seeds did not wake up.
    ? {sad}
    ? "Give up," said {his} friend {friend}. "Those seeds are no good." But {hero} did not want to give up.

    {He} went back to {helper}. "My seeds will not grow," {he} said.
    | At last, {hero} went to {helper} for help. "I have tried everything," {he} said.
    | "What did I do wrong?" {hero} asked {helper}.
    "[Did you give them water|Do they have water]?" asked {helper}. {hero} [had forgotten the water|had not \
      thought of that].
    | {helper} came and looked at the ground. It was as dry as dust. {hero} had forgotten to give the seeds \
      any water.
    "They need water and sun, and they need time," said {helper}. "[You cannot hurry a seed|Good things are \
      slow]."
    | "A little water, a lot of sun, and then you have to wait," said {helper}.
    | "Give them a little water every day," said {helper}, "and then wait. Waiting is the hardest part."
    So {hero} gave them water every [day|morning], and {he} waited. One week went by. Then another.
    | {hero} carried water every [day|morning]. {He} waited and waited, and {he} did not give up.

    Then, {one_day}, there was something green! "They are growing!" cried {hero}.
    | At last, {one_day}, a green leaf looked out of the ground. "Hello!" said {hero}.
    | And {one_day}, {he} saw a tiny green leaf, and then two, and then ten.
    {glad}
    By the end of summer, there were {plants} everywhere. The first {plant} was the best. {End}.
    | The sun came and the rain came, and there were more {plants} every week. How good the first {plant} \
      looked! {End}.
    | All summer long, the garden grew. {hero} was very proud of the first {plant}. {End}.
    {He} gave the biggest one to {helper}. "You taught me how to wait," {he} said.
    | "[Now I know how to wait|It was worth the wait]," said {hero}, and gave the biggest one to {helper}.
    | {He} shared the {plants} with {helper} and with all {his} friends.
    """,
)

MISTAKE = Plot(
    "a mistake",
    cases=(
        {"thing": "cup", "place": "on the shelf", "act": "bumped into the shelf", "mend": "glued the pieces together"},
        {
            "thing": "flower pot",
            "place": "by the window",
            "act": "kicked the ball too hard",
            "mend": "put the flower in a new pot",
        },
        {"thing": "clock", "place": "on the wall", "act": "slammed the door", "mend": "made it tick again"},
        {
            "thing": "lamp",
            "place": "on the table",
            "act": "pulled at the table cloth",
            "mend": "made a new shade for it",
        },
        {"thing": "plate", "place": "on the wall", "act": "threw a ball too far", "mend": "glued the pieces together"},
        {"thing": "bowl", "place": "on the table", "act": "jumped too high", "mend": "glued it piece by piece"},
    ),
    text="""
    {meet}
    {One_day}, {he} was playing at {helper}'s house. "Please be careful," said {helper}, and went out into \
      the garden.
    | {One_day}, {hero} was playing at {helper}'s house. "I will be back soon," said {helper}, and went to \
      get some wood.
    | {One_day}, {hero} went to visit {helper}, {helper.who}. While {helper} was outside, {hero} began to \
      play.
    But {hero} {act}. Crash! The {thing} {place} was broken.
    | {hero} {act}. There was a loud crash, and the {thing} {place} was in pieces.
    | {hero} was having so much fun that {he} {act}. Crash! Oh no! It was the {thing} {place}.
    It was {helper}'s favorite {thing}.
    | "Oh no," said {hero}. "{helper} loves that {thing}."
    | {helper} had owned that {thing} for many years.

    {hero} [was scared|did not know what to do]. {He} [ran outside and hid behind a tree|ran home and told \
      nobody].
    | {hero} pushed the pieces under the table and went home without a word.
    | "Maybe nobody will know it was me," thought {hero}, and {he} ran away.
    But {he} could not play, and {he} could not eat. {His} belly [hurt|felt like a stone].
    | That night, {he} could not sleep. {He} saw the broken {thing} every time {he} closed {his} eyes.
    | But the sun was not so warm anymore, and {his} favorite game was no fun.
    ? {sad}
    {His} friend {friend} saw it right away. "Something is wrong," said {friend}. So {hero} told \
      {friend.him} everything.
    | "You look so sad," said {his} friend {friend}. "Tell me what it is." And {hero} told {friend.him} \
      about the {thing}.
    | "What is the matter?" asked {his} friend {friend}. In a small voice, {hero} told {friend.him} the \
      whole story.
    "You should tell the truth," said {friend}. "It is hard, but then it will be over."
    | "A mistake gets heavy when you carry it alone," said {friend}. "Go and tell {helper}."
    | "Go and say that you are sorry," said {friend}. "I will go with you."

    {hero} went back. {His} legs felt weak. "I broke your {thing}," {he} said. "I am very sorry."
    | {hero} knocked on the door. "It is about your {thing}," {he} said. "I broke it, and I am sorry."
    | {hero} walked up to {helper}. "It was me," {he} said. "I broke the {thing}. I am so sorry that I ran \
      away."
    {helper} was quiet for a moment. "I am sad about the {thing}," {helper.he} said, "but I am glad that \
      you told me."
    | {helper} took {his} {hand}. "You are worth more to me than a {thing}," {helper.he} said.
    | "Thank you for telling me," said {helper}. "That was brave. A {thing} can be fixed."
    "[Can I help to fix it|Can we mend it]?" asked {hero}. So they sat down side by side and {mend}.
    | Together, they {mend}. {hero} worked [hard|with great care].
    ? It did not look like new, but {helper} liked it even more than before.
    {hero} felt as light as a feather.
    | "Next time, I will tell you at once," said {hero}.
    | Everyone makes mistakes. What matters is what you do next.
    | On the way home, {hero}'s belly did not hurt anymore.
    """,
)

PARTY = Plot(
    "a surprise party",
    cases=(
        {"excuse": "I have to wash my socks", "secret": "paper stars", "where": "in the barn"},
        {"excuse": "I have to count my buttons", "secret": "a long chain of flowers", "where": "in the garden"},
        {"excuse": "I have to brush the horse", "secret": "a bag of balloons", "where": "under the big oak tree"},
        {"excuse": "I have to clean my shoes", "secret": "a big drum", "where": "by the pond"},
        {"excuse": "I have to look for my spoon", "secret": "a lot of little lamps", "where": "in the old mill"},
    ),
    text="""
    {meet}
    {hero} woke up early. It was {his} birthday! [But nobody said a word about it.|But the house was quiet.]
    | It was {hero}'s birthday. {He} jumped out of bed and waited for {his} friends. But nobody came.

    {He} went to see {his} friend {friend}. "Do you want to play?" {hero} asked. "I cannot," said {friend}. \
      "{excuse}." And {friend.he} closed the door.
    | {friend} came down the road. "Good morning!" called {hero}. But {his} friend only said, "{excuse}," \
      and hurried away.
    | {He} met {his} friend {friend}, who was carrying {secret}. "What is that for?" asked {hero}. "Oh, \
      nothing," said {friend}, and ran off.
    Then {he} saw {helper}. "Do you know what day it is?" asked {hero}. "It is a day like any other," said \
      {helper}, and looked away.
    | {helper} was in a hurry, too. "Not now, {hero}," said {helper}. "[I am very busy today|Come back \
      later]."
    {sad}
    "Everyone has forgotten my birthday," thought {hero}.
    | "Maybe next year," said {hero}, and {he} walked home very slowly.
    | "Nobody remembers me," {he} said to {himself}.

    In the [afternoon|evening], there was a [note|letter] under the door. "Come quickly!" it said. "We need \
      help {where}."
    | Late in the day, a {critter} came to the door. "Come quickly!" it called. "There is trouble {where}!"
    {hero} was still sad, but {he} wanted to help. {He} ran as fast as {he} could.
    | {hero} forgot that {he} was sad. Somebody needed help! {He} was there in no time.
    | "I must help them," said {hero}, and {he} ran and ran.
    It was very quiet there. Nobody was to be seen. And then...
    | {He} came closer. It was quiet, much too quiet. And then...
    | At first, {he} saw nobody at all. And then...

    "Surprise!" Everybody jumped out. "Happy birthday, {hero}!"
    | "Surprise! Surprise!" All of {hero}'s friends were there. "Happy birthday!" they sang.
    There was {friend} with {secret}, and there was {helper} with a big {treat}.
    | On the table, there was a big {treat} from {helper}. And {friend} gave {him} {secret}.
    | {friend} had brought {secret}. {helper} had baked a {treat}.
    "We did not forget you," said {friend}. "We had a secret."
    | "How could we forget you?" said {friend}. "You are our friend."
    | "It was so hard not to tell you," said {friend} with a laugh.
    {glad}
    They sang and danced until [the moon came up|the stars came out].
    | {hero} made a wish. But {he} did not really need one.
    ? It was the best birthday {he} ever had.
    """,
)

SKILL = Plot(
    "learning a skill",
    cases=(
        {"skill": "ride a bike", "fail": "fell into the grass", "hint": "Look at the road, not at your feet"},
        {
            "skill": "skip a stone on the pond",
            "fail": "heard only a plop",
            "hint": "Take a flat stone and throw it low",
        },
        {"skill": "whistle", "fail": "blew only air", "hint": "Make your mouth small and round"},
        {"skill": "walk on a log", "fail": "fell off after two steps", "hint": "Hold out your arms and go slowly"},
        {"skill": "catch a ball", "fail": "let it drop", "hint": "Keep your eyes on the ball"},
        {"skill": "row a boat", "fail": "went around in a circle", "hint": "Pull on both sides at the same time"},
    ),
    not_for=("Dot", "Pip"),
    text="""
    {meet} {meet_friend}
    {friend} could {skill}. It looked so easy! {hero} wanted to learn it, too.
    | {One_day}, {hero} saw how {friend} could {skill}. "I want to do that!" {he} said.
    | All {his} friends could {skill}. Only {hero} could not.

    {He} tried, but {he} {fail}. {He} tried again, and again {he} {fail}.
    | {He} tried it once and {fail}. {He} tried it ten times, and {he} still {fail}.
    | The first time, {hero} {fail}. The second time, {he} {fail} again.
    ? Somebody laughed, and {hero} turned red.
    "I will never learn it," said {hero}[.|, and sat down on the ground.]
    | "It is too hard," said {hero}. "[I give up|I do not want to try anymore]."
    "I could not do it at first," said {friend}. "It took me [ten days|a whole summer]."
    | "I {fail} too, when I was learning," said {friend}.
    | "You cannot do it yet," said {friend}. "That is a small word, but a good one."
    "[Try it like this|Here is a secret]," said {friend}. "{hint}."
    | {friend} showed {him} how. "{hint}," {friend.he} said.

    {hero} stood up and tried once more. It was a little better.
    | {hero} listened and tried it again. "Almost!" called {friend}.
    | So {hero} tried it that way. It did not work at once, but it was better than before.
    Every day, {he} practiced, in the morning and in the evening.
    | When it rained, {he} practiced. When the sun was out, {he} practiced, too.
    | {He} practiced on Monday. {He} practiced on Tuesday. {He} practiced all week long.
    ? Some days were good and some days were bad. {He} did not stop.
    Then, {one_day}, it worked! "Look at me!" cried {hero}. "I can {skill}!"
    | Nobody was there to see it when, {one_day}, it worked. {hero} ran to {friend} at once. "I can \
      {skill}!" {he} called.
    | And {one_day}, {hero} did it, all by {himself}. "I can {skill}!" {he} shouted.
    {friend} clapped {friend.his} {friend.hands}. "I knew you could do it!"
    | "You did it!" said {friend}. "I am so proud of you."
    | "Hooray!" called {friend}, and {friend.he} {friend.joy}.
    {glad}
    The next week, {hero} helped somebody else to learn it. "{hint}," {he} said.
    | Now {hero} could {skill}, and the two friends did it together every day.
    | {hero} had learned how to {skill}. And {he} had learned not to give up.
    """,
)

BIRD = Plot(
    "a bird out of its nest",
    cases=(
        {"idea": "a ladder from the barn", "held": "held the ladder", "went": "climbed up, one step at a time"},
        {
            "idea": "three strong boxes",
            "held": "put the boxes on top of each other and held them",
            "went": "climbed up with care",
        },
        {
            "idea": "the long board by the fence",
            "held": "leaned the board against the tree",
            "went": "walked up, step by step",
        },
    ),
    not_for=("Zoe",),
    text="""
    {meet}
    {One_day}, after a windy night, {he} was walking under the trees. [Peep, peep!|{He} heard a tiny sound.]
    | The wind blew hard one night. In the morning, {hero} heard a small voice in the grass. Peep, peep!
    There, in the grass, sat a baby bird. It had fallen out of its nest.
    | It came from a baby bird, so small that it had only a few feathers. High above was its nest.
    | It was a baby bird. It was too small to fly, and its nest was high up in a tree.
    "[Do not be afraid|Poor little bird]," said {hero} softly. "I will bring you home."
    | "Where is your mother?" asked {hero}. The baby bird only looked at {him} with its round eyes.

    {He} [reached up as high as {he} could|stood on the tips of {his} toes], but the nest was too high. \
      {He} jumped, but it was still too high.
    | {hero} tried to get up the tree with one {hand}, but {he} slid down again.
    ? A black cat came out of a bush and looked at the bird. "Go away!" called {hero}, and the cat went away.
    "[I cannot do it alone|I need help]," said {hero}. {He} put the bird into {his} hat and ran to {his} \
      friend {friend}.
    | What now? {hero} thought of {his} friend {friend}, who always had good ideas, and ran to get \
      {friend.him}.
    | {hero} made a soft bed of leaves for the bird. Then {he} called for {his} friend {friend}.
    {friend} had an idea. "We need {idea}!"
    | {friend} looked up at the nest and thought. "{Idea} would help," {friend.he} said, and ran to get it.
    | "What do we have?" asked {friend}. {Friend.he} looked around. "I know! {Idea}!"
    {friend} {held}, and {hero} {went}.
    | "Slowly, slowly," said {friend}. {friend} {held}. Then {hero} {went}.
    | It was not easy. {friend} {held}. {hero} {went}.

    At last, the baby bird was back in its nest. [Its mother came flying at once.|Its sisters and brothers \
      made room for it.]
    | Now the baby bird was safe. It sat in its nest and said peep, but this time it was a happy peep.
    | Peep! The little bird was home. Its mother sang with joy.
    "[We did it|Good work]!" said {friend}.
    {glad}
    ? They sat under the tree and watched until the sun went down.
    | A cat came by and looked up, but the nest was much too high for a cat.
    Every morning after that, a bird sang at {hero}'s window.
    | Some weeks later, a young bird flew over the house. It sang, as if to say thank you.
    | When spring was over, the little bird could fly. It flew three times around {hero}'s head.
    """,
)

BRIDGE = Plot(
    "a bridge",
    cases=(
        {"want": "the sweetest berries", "bring": "two baskets full of berries"},
        {"want": "the tallest sunflowers", "bring": "an armful of yellow flowers"},
        {"want": "the best apples", "bring": "a bag full of apples"},
        {"want": "the biggest nuts", "bring": "a sack full of nuts"},
    ),
    not_for=("Dot", "Oscar"),
    text="""
    {meet} {meet_friend}
    On the other side of the stream grew {want} of all. But the water was [deep|cold and fast].
    | Every day, {hero} and {friend} sat by the stream. On the other side, they could see {want} in the \
      village. Nobody ever picked them.
    | {One_day}, {hero} and {friend} saw {want} on the other side of the stream. But how could they get there?

    "I will jump!" said {hero}. {He} ran and jumped. Splash! {He} landed in the water and came out [cold \
      and wet|with a wet nose].
    | {hero} wanted to walk through the water. But it was too deep, and {he} came back with wet feet.
    | "I can jump that far," said {hero}. But {he} could not. Splash! {friend} pulled {him} out.
    "We need a bridge," said {friend}. They laid a [thin branch|long stick] over the water. Crack! It broke \
      in two.
    | They pushed a thin board over the water. It was too weak. Crack! The water carried it away.
    | Then they tried a [thin branch|small board]. {friend} put one foot on it. Crack! It broke.
    ? {sad}
    {helper} came along the path. "One stick is weak," said {helper}. "But what about many sticks?"
    | They asked {helper}. "Take a stick and break it," said {helper}. That was easy. "Now take ten \
      sticks." They could not break them.
    | "What are you doing?" asked {helper}, who was walking by. "One stick breaks, but many sticks are \
      strong."
    {hero} looked at {friend}, and {friend} looked at {hero}. [What a good idea!|Of course!]

    They [looked for|picked up] sticks, and {helper} gave them a rope. {hero} held the sticks, and {friend} \
      tied the knots.
    | All day long, {hero} carried sticks and {friend} tied them together with a rope.
    ? "My {hands} are tired," said {hero}. "We are almost done," said {friend}.
    When the sun was low, the bridge was done. {hero} put one foot on it. It held! {He} put the other foot \
      on it. It held!
    | They worked until the evening. Then {hero} jumped up and down on the bridge. It did not move at all.
    | At last, the bridge lay over the stream. First {friend} walked over it, and then {hero}. It was as \
      strong as a rock.
    {glad}
    They came home with {bring}, and [{helper} got the first one|they shared with everyone they met].
    | That evening, they brought home {bring}. [The whole village|Even {helper}] wanted to see the bridge.
    One stick is weak, but many sticks are strong. It is the same with friends.
    | {friends_end}
    | After that, everyone in the village used the bridge.
    """,
)

SHOW = Plot(
    "stage fright",
    cases=(
        {"act": "sing a song", "acting": "singing", "lost": "the words"},
        {"act": "do a dance", "acting": "dancing", "lost": "the steps"},
        {"act": "play the flute", "acting": "playing", "lost": "the tune"},
        {"act": "tell a story", "acting": "telling the story", "lost": "how the story began"},
        {"act": "say a poem", "acting": "saying the poem", "lost": "the first line"},
    ),
    text="""
    {meet}
    Soon there would be a show in the village, and {hero} was going to {act}.
    | In three days, there would be a big show. Everyone did something, and {hero} was going to {act}.
    | "Will you {act} at our show?" asked {helper}. {hero} said yes. But then {he} began to worry.
    At home, it was easy. But now there would be so many people!
    | {He} practiced [in front of the mirror|in the garden] every day. It always went well when nobody was \
      there.
    ? "What if they laugh at me?" {he} asked {helper}. "They will not," said {helper}.

    The big evening came. {hero} looked out at all the faces. {His} knees began to shake.
    | When the evening came, every chair was taken. {hero} felt very small.
    | Then it was {hero}'s turn. It was so quiet that {he} could hear {his} own heart.
    {He} wanted to begin, but {he} could not. {He} had forgotten {lost}!
    | One, two, three. Nothing happened. {hero} did not remember {lost} anymore.
    | {He} took one step and stopped. {His} head was empty. {He} could not remember {lost}.
    {hero} wanted to run away. {He} looked at the door.
    | {His} face turned red. Somebody coughed.
    | One moment went by, and then another. {hero} looked down at {his} feet.

    Then {he} saw {his} friend {friend} in the first row. {friend} smiled and [nodded|waved].
    | But there, in the first row, sat {his} friend {friend}. {Friend.he} put {friend.his} {friend.hand} on \
      {friend.his} heart and smiled.
    "Just do it for me," said {friend} softly, "as if we were at home."
    | {friend} did not look away. {Friend.he} waited, as if there was all the time in the world.
    | "Look only at me," said {friend}. "There is nobody else here."
    ? {hero} took a deep breath. One, two, three.
    {hero} looked only at {friend}. And then {he} remembered {lost}. {He} started {acting}, first softly, \
      then [louder|with joy].
    | All at once, it came back to {him}. {hero} began, and soon {he} forgot that {he} was afraid.

    When it was over, everyone clapped. {helper} clapped the loudest.
    | Then it was over. For a moment, it was quiet. Then everyone jumped up and clapped.
    | At the end, the people clapped and clapped. "[More|Bravo]!" called {helper}.
    {glad}
    "Were you not afraid?" {friend} asked later. "Yes," said {hero}, "but then I saw a friend."
    | "You were so brave," said {friend}. "I was afraid," said {hero}. "But I did it anyway."
    | To be brave does not mean that you are never afraid. {hero} knew that now.
    """,
)

NEIGHBOR = Plot(
    "a new neighbor",
    cases=(
        {"game": "hide and seek", "start": "{friend} found the best places to hide"},
        {"game": "catch", "start": "{friend} was very quick"},
        {"game": "pirates", "start": "{friend} was the captain and {hero} had the map"},
        {"game": "school", "start": "{friend} was the teacher and made funny faces"},
        {"game": "chess", "start": "{friend} knew a very good trick"},
    ),
    text="""
    {meet}
    {One_day}, somebody moved into the [empty|little] house next door. It was {friend}, {friend.who}.
    | For a long time, the house next door was empty. Then, {one_day}, there was light in the window. \
      {friend}, {friend.who}, lived there now.
    | {One_day}, a cart full of boxes stopped at the house next door. {friend}, {friend.who}, had come to \
      live there.
    {hero} looked over the fence. {friend} was sitting [all alone on the steps|under a tree with nobody to \
      play with].
    | {friend} was carrying box after box into the house. {Friend.he} did not look happy.
    | From the window, {hero} could see {friend} in the yard. {friend} was playing alone.

    {hero} wanted to say hello, but {he} did not know how. "What if {friend} does not like me?" {he} thought.
    | What do you say to somebody new? {hero} thought about it all morning.
    | "Go and say hello," said {helper}. But {hero} felt shy and hid behind the fence.
    ? {He} walked up to the gate. Then {he} turned around and walked back.
    "It is hard to be new," said {helper}. "Maybe {friend} is shy, too."
    | "Everybody was new once," said {helper}. "Somebody has to say the first word."
    | {hero} asked {helper} what to do. "Just bring something nice," said {helper}, "and say your name."
    So {hero} took a {treat} and knocked on the door. "Hello," {he} said. "I am {hero}. This is for you."
    | At last, {hero} opened the gate. "I am {hero}," {he} said, "and I live next door. Do you like {treat}?"
    | {hero} had a {toy}. {He} put it over the fence. "Do you want to play with it?" {he} asked. "My name \
      is {hero}."

    {friend} [smiled for the first time that day|looked up with big eyes]. "I am {friend}," {friend.he} \
      said. "I was afraid that nobody would talk to me."
    | "Oh, thank you!" said {friend}. "I do not know anyone here. I miss my old friends."
    "Now you know me," said {hero}. "[Do you like to play {game}|Do you want to play {game}]?"
    | "There is room for one more here," said {hero}. "We can play {game}."
    | "You can be my friend," said {hero}. "Let us play {game}!"
    They played {game} until it was dark. {Start}.
    | First they talked a little. Then they played {game}. {Start}.
    | So they played {game}. {Start}, and they both laughed.
    ? {hero} showed {friend.him} the pond, the mill, and the best tree in the village.

    And that is how {hero} and {friend} became friends.
    | The next morning, it was {friend} who knocked on {hero}'s door.
    | Now there was a hole in the fence, just big enough for two friends.
    One kind word can open a door.
    | {night_end}
    | {glad}
    """,
)

KITE = Plot(
    "a kite in a tree",
    cases=(
        {"idea": "a long pole", "how": "With the pole, {hero} gave the kite a little push"},
        {"idea": "the big ladder", "how": "{helper} held the ladder, and {hero} climbed up to the kite"},
        {"idea": "a broom and a rope", "how": "{hero} tied the broom to the rope and pulled the branch down"},
        {
            "idea": "a bag of corn",
            "how": "A crow came down for the corn, and to say thank you it pulled the kite out of the tree",
        },
    ),
    text="""
    {meet} {meet_friend}
    {hero} had made a {color} kite with a long tail. {One_day}, the wind was just right.
    | {hero} and {friend} had only paper, sticks, and string. But in the evening, they had a fine {color} \
      kite.
    | {hero} and {friend} had made a {color} kite. It had taken them a whole week.
    {hero} ran, and the kite went up, up, up into the sky.
    | "Now!" called {friend}, and {hero} let go. The kite danced in the wind.
    | Up it went, higher than the houses and higher than the trees.
    ? "It looks like a bird!" said {friend}.
    Then a strong wind came. Snap! went the string, and the kite flew into a tall tree.
    | For a while, all went well. But then the string broke, and the kite got stuck in a tall tree.
    | But the wind pulled too hard, and the string slipped out of {his} {hand}. The kite landed in a tall \
      tree.

    {hero} shook the tree. The kite did not move. {He} threw a stick. Now the stick was in the tree, too.
    | {He} jumped and jumped, but {he} could not reach it. {friend} threw a shoe at it. Now the shoe was in \
      the tree, too!
    | First they shook the tree. Then they shouted at the kite. It only waved its tail.
    {sad}
    | "My poor kite," said {hero}.
    "[Let us not be sad|Do not be sad]," said {friend}. "Let us think."
    | "It is not lost," said {friend}. "It is only very high up."
    | "We should ask somebody," said {friend}. "Two heads are good, but three are better."

    They went to {helper}. "[Can you help us?|We need your help!]" they said. {helper} thought for a moment \
      and gave them {idea}.
    | Just then, {helper} came by. "You need {idea}," said {helper}. "I will be right back."
    {how}. Down came the kite, as slow as a leaf.
    | That was a good idea. {how}. Soon the kite was back in {hero}'s {hands}.
    | {how}. And down it came!
    There was a hole in it, but {friend} had some {color} paper, and soon it was as good as new.
    | {hero} looked at it from all sides. Not one hole!
    | It was not even broken. Only its tail had a new knot.
    {glad}
    "Thank you for your help," said {hero}. "Would you like to fly it, too?" And {helper} ran over the hill \
      with the kite like a child.
    | "Thank you so much," said {hero}, and {friend} said it too.
    {friends_end}
    | After that, they always flew the kite in the open meadow, far away from the trees.
    """,
)

SNOW = Plot(
    "a snowman",
    cases=(
        {"missing": "a nose", "found": "an orange carrot", "from": "the kitchen", "it": "it"},
        {"missing": "a hat", "found": "an old bucket", "from": "the barn", "it": "it"},
        {"missing": "a scarf", "found": "a long {color} scarf", "from": "an old box", "it": "it"},
        {"missing": "arms", "found": "two strong sticks", "from": "the forest", "it": "them"},
        {"missing": "eyes", "found": "two shiny black stones", "from": "the river bank", "it": "them"},
        {"missing": "buttons", "found": "three round nuts", "from": "an old bag", "it": "them"},
    ),
    text="""
    {meet} {meet_friend}
    One cold morning in winter, [the whole village was white|everything was covered with snow]. "Snow!" \
      cried {hero}, and ran to {friend}.
    | It was winter. All night long, it had snowed and snowed. {hero} looked out of the window. "{friend}, \
      come and see!" {he} called.
    "Let us make a snowman," said {friend}. They rolled one big ball, one middle ball, and one small ball.
    | "I have an idea," said {friend}. "Let us make a snowman, as tall as a house!" In the end, it was as \
      tall as a chair.
    | They made a snowman. {hero} rolled the belly, and {friend} rolled the head.

    The snowman was almost done. But something was missing.
    | At noon, the snowman was almost done. {friend} looked at it and shook {friend.his} head. Something \
      was missing.
    | They took a step back and looked. The snowman did not look right.
    "I know!" said {hero}. "It needs {missing}! Without {missing}, it is not a snowman."
    | "It has to have {missing}," said {friend}. But what could they take?
    They looked under the snow. [They found a leaf and an old button.|They found only grass.] That was not \
      right.
    | {friend} tried a pine cone. It did not look right. {hero} tried a leaf. The wind blew it away.
    ? {sad}
    They asked {helper}. "Let me see," said {helper}, and came back with {found} from {from}.
    | {hero} ran to {helper}'s house. "What a fine snowman!" said {helper}. "Take this." It was {found} \
      from {from}.
    | "Look what I have," said {helper}, who had watched them. It was {found} from {from}.
    {hero} put {it} in place. [Now the snowman was perfect.|"Hello, snowman!" said {friend}.]
    ? "Do you think it is cold?" asked {friend}. "No," said {hero}. "A snowman likes the cold."

    That night, {hero} looked out of the window. The snowman stood in the moonlight and [seemed to \
      smile|looked happy].
    | They gave the snowman a name. They called it Mister White.
    When the sun came back, the snowman got smaller and smaller. "Do not be sad," said {helper}. "It is \
      only going to the river. Next winter, it will come back as snow."
    | The days grew warm. Every day, there was a little less of the snowman. "Next year, we will make a new \
      one," said {friend}.
    | In spring, the snowman was gone. Only {found} lay in the grass. {hero} put {it} away for the next \
      winter.
    {friends_after}
    """,
)

MAP = Plot(
    "a treasure map",
    cases=(
        {"treasure": "a pile of old picture books", "use": "They read one book every day"},
        {
            "treasure": "a little bell made of silver",
            "use": "They hung it over the school door, and it rang every morning",
        },
        {"treasure": "a bag of flower seeds", "use": "They planted them all over the village"},
        {"treasure": "an old flute", "use": "They learned to play it, first badly and then well"},
        {"treasure": "a box full of marbles", "use": "They gave some to every child in the village"},
    ),
    text="""
    {meet} {meet_friend}
    {One_day}, {hero} [opened an old book|looked into an old box]. A piece of paper fell out. It was a map!
    | {hero} was playing in the hay when {he} found an old map. {He} showed it to {friend} at once.
    | {One_day}, {hero} and {friend} found a bottle in the river. In the bottle, there was a map.
    "Look, there is a red cross," said {friend}. "[That means treasure|A treasure]!"
    | At one end, there was a red cross. "Treasure!" {he} said to {friend}.

    They took a [spade|lamp and a spade] and followed the map. First they went over the bridge. Then they \
      walked [past the mill|around the pond].
    | They put on their boots and took a spade. The map led them over the bridge and up the hill.
    | "Ten steps to the oak tree," {hero} read. "Then left at the big stone." They counted every step.
    They dug a hole [by the fence|near the path], but there was nothing in it. They dug [one more|another]. \
      Nothing!
    | They came to three trees, but on the map there were only two. "This is hard," said {friend}.
    | They came to a wall and could not go on. "We are lost," said {friend}.
    ? It was getting late. Maybe there was no treasure at all.
    Then {hero} turned the map around. "We were holding it upside down!" {he} cried.
    | They sat down and ate some bread. Then {hero} saw it. "Look, the map has a back side!" {he} cried. On \
      it, there was one more arrow.
    | {hero} looked at the map again, very slowly. "That is not a stone," {he} said. "It is a sheep! And \
      the sheep has moved."
    [They laughed and started again.|So they went back and tried again.]

    This time, they found the place. They dug and dug. Clonk! There was [a chest|a box made of iron].
    | Now it was easy. "Dig here!" said {friend}. Under the earth, there was a small wooden chest.
    | And there it was, under the roots of a tree. It was a small wooden chest.
    Was it gold? No. It was {treasure}.
    | {hero} lifted the lid. There was something better than gold in it. It was {treasure}.
    | They opened it slowly. There was no gold in it. There was {treasure}.
    ? There was a note, too. "For those who do not give up," it said.
    "This is better than gold," said {hero}. {use}.
    | They looked at each other and smiled. They knew what to do with it. {use}.
    | "What shall we do with it?" asked {friend}. "Share it," said {hero}. {use}.
    {friends_after}
    | And then they drew a new map, so that somebody else could find something one day.
    """,
)

SICK = Plot(
    "a sick friend",
    cases=(
        {"block": "the bridge was gone, for the water was too high", "way": "took the long way over the hill"},
        {"block": "a big tree lay across the road", "way": "crawled under it, very slowly"},
        {"block": "a gray goose stood in the way and hissed", "way": "gave it a piece of bread and walked past"},
        {"block": "there was thick fog, and the path was hard to see", "way": "followed the fence, step by step"},
        {"block": "the wind nearly blew the pot away", "way": "held it with both {hands} and walked on"},
    ),
    text="""
    {meet} {meet_friend}
    {One_day}, {friend} did not come out to play. "{friend} is sick," said {helper}, "and has to stay in bed."
    | "Where is {friend}?" asked {hero} {one_day}. "In bed, with a bad cold," said {helper}. "{friend} must \
      rest."
    | {One_day}, {hero} waited for {friend}, but {friend} did not come. {Friend.he} had a bad cold and had \
      to stay in bed.
    {hero} felt sorry for {friend.him}. "It is [no fun|sad] to be sick and alone," said {hero}.
    | "A friend should not be alone on such a day," said {hero}.
    | "Then I will bring {friend} something good," said {hero}.
    {He} made a pot of [hot soup|carrot soup|noodle soup] and put it into a basket.
    | {helper} gave {him} a pot of hot soup. "It helps against a cold," said {helper}. "Carry it with care."
    {He} also packed {his} {toy}.
    | And because {friend} was alone, {he} put {his} {toy} into the basket, too.

    It was a long way. Halfway there, {block}.
    | The road went up and down. {hero} walked with care. All at once, {block}.
    | {hero} set off at once. But then {block}.
    ? "Should I go home?" thought {hero}. "No. {friend} is waiting."
    But {hero} did not turn back. {He} {way}.
    | "I will find a way," {he} said. {He} {way}.
    | {hero} thought for a moment. Then {he} {way}.
    ? {He} did not spill one drop.

    {friend} lay in bed with a red nose. "Achoo!" {friend.he} said, and tried to smile.
    | {friend} looked very small in the big bed. But when {friend.he} saw {hero}, {friend.he} sat up and \
      smiled.
    "Did you come all this way for me?" asked {friend}. "Of course," said {hero}. "Eat this. It is still \
      warm."
    | "How are you?" asked {hero}. "Better, now that you are here," said {friend}.
    | "I brought you some soup," said {hero}, "and I brought my {toy}, so that you are not alone at night."
    {friend} ate two bowls. Then {hero} told {friend.him} a funny story until {friend.he} fell asleep.
    | {friend} ate it all. "That was the best soup in the world," {friend.he} said.
    | The soup was good, and the visit was even better.

    [Three days|One week] later, {friend} was well again. {Friend.he} brought the {toy} back. "It took good \
      care of me," {friend.he} said.
    | Soon {friend} could play outside again. The first thing {friend.he} did was to bring back the {toy}.
    And when {hero} had a cold, [you can guess who came with soup|{friend} came with a big pot of soup].
    | {friends_after}
    """,
)

QUARREL = Plot(
    "a quarrel",
    cases=(
        {
            "prize": "the swing",
            "pull": "pulled at the ropes",
            "harm": "One rope broke",
            "mend": "tied a new rope to the swing",
            "turns": "First one pushed, and then the other",
        },
        {
            "prize": "the wagon",
            "pull": "pulled at the handle",
            "harm": "One wheel came off",
            "mend": "put the wheel back on",
            "turns": "First one sat in the wagon, and then the other",
        },
        {
            "prize": "the big paint brush",
            "pull": "pulled and pulled",
            "harm": "It broke in two",
            "mend": "tied the brush together",
            "turns": "One painted the sky, and the other painted the grass",
        },
        {
            "prize": "the picture book",
            "pull": "pulled at the pages",
            "harm": "One page tore",
            "mend": "glued the page back in",
            "turns": "One read a page, and the other read the next",
        },
        {
            "prize": "the drum",
            "pull": "pulled with both {hands}",
            "harm": "The drum fell down and got a hole",
            "mend": "put a new skin on the drum",
            "turns": "One drummed and the other danced",
        },
    ),
    text="""
    {meet} {meet_friend}
    {One_day}, they both wanted {prize}. "It is my turn," said {hero}. "No, it is my turn!" said {friend}.
    | It all began with {prize}. "Give it to me!" said {hero}. "No, I had it first!" said {friend}.
    | {One_day}, there was a quarrel. {hero} wanted {prize}. {friend} wanted it, too. "I was first!" said \
      {hero}. "No, I was!" said {friend}.
    They both {pull}. [Crack!|Oh no!] {harm}.
    | Nobody wanted to let go. They {pull}, harder and harder. {harm}.

    "Look what you did!" cried {hero}. "It was you!" cried {friend}. And {friend.he} ran home.
    | "Now it is broken, and it is your fault!" said {friend}. They did not look at each other, and they \
      both went home.
    | "I do not want to be your friend anymore," said {friend}. {hero} turned {his} back and went away.
    Now {hero} was alone. {He} played with {his} {toy}, but it was no fun without {friend}.
    | The afternoon was long. {hero} looked out of the window. Nobody came.
    | {hero} sat at home. It was very quiet. There was nobody to talk to.
    ? {sad}
    "I am angry with {friend}," {he} told {helper}. "Are you angry," asked {helper}, "or are you sad?"
    | {helper} sat down next to {him}. "What do you miss more," asked {helper}, "{prize} or your friend?"
    {hero} thought about it. "[I miss my friend|I think I am sad]," {he} said.
    | {hero} did not have to think for long. "I miss {friend}," {he} said softly.

    So {he} went to {friend}'s house. On the way, {he} met {friend}, who was coming to see {him}!
    | The next morning, {hero} took a {treat} and went to see {friend}. The door was already open.
    | {He} ran to {friend}'s house and knocked. {friend} opened the door. {Friend.his} eyes were red.
    "I am sorry," said {hero}. "I am sorry, too," said {friend}.
    | They both said sorry at the same time, and then they had to laugh.
    | "I should not have pulled," said {hero}. "I should not have shouted," said {friend}.
    Together, they {mend}. Soon it was as good as new.
    | They went back and {mend}. It took all afternoon, but it was nice to work side by side.
    And then they took turns. {Turns}.
    | "You go first," said {hero}. "No, you go first," said {friend}. {Turns}.
    ? It was much more fun that way.
    {friends_after}
    | Even good friends quarrel. But good friends say sorry, too.
    """,
)

LOST_WAY = Plot(
    "the way home",
    cases=(
        {"trail": "white stones", "drop": "dropped a white stone at every turn"},
        {"trail": "{color} ribbons", "drop": "tied a {color} ribbon to a branch at every turn"},
        {"trail": "arrows", "drop": "drew an arrow on the ground at every turn"},
        {"trail": "little sticks", "drop": "put a little stick in the ground at every turn"},
    ),
    text="""
    {meet} {meet_friend}
    {One_day}, the two friends went into the deep forest to look for [mushrooms|nuts|berries].
    | {One_day}, {hero} and {friend} took two baskets and walked into the deep forest. It was full of \
      [mushrooms|nuts|berries].
    | "Let us go to the deep forest today," said {friend}. "There are [mushrooms|nuts|berries] in it as big \
      as a hat!"
    {hero} {drop}. "Why do you do that?" asked {friend} with a laugh. "[So that we can find the way \
      back|You will see]," said {hero}.
    | On the way, {hero} {drop}. {friend} laughed. "We do not need that. I know the way."

    They walked for a long time, and they [filled their baskets|found many good things].
    | They picked and picked, and they did not look at the sun.
    | They went deeper and deeper into the forest. Their baskets were soon full.
    Then it got dark. All the trees looked the same. "Which way is home?" asked {friend}.
    | The sun went down. {friend} looked around. "Where is the path?" {friend.he} asked.
    | When they wanted to go home, they did not know the way. Left or right? Every tree looked like the next.
    They walked to the left and came to a big rock. They walked to the right and came to the same rock again.
    | "This way," said {hero}. But there was only a dark pond. "That way," said {friend}. But there were \
      only bushes.
    | {friend} climbed on a rock, but {friend.he} could see only trees.
    ? "Hoo, hoo," called an owl. {friend} came closer to {hero}.
    "We are lost," said {friend}, and {friend.his} voice was shaking.
    | "I cannot see the path anymore," said {friend}. It was cold, and home was far away.
    | "I am afraid," said {friend}. "What if nobody finds us?"

    "Do not worry," said {hero}. "Remember the {trail}!" They looked, and there they were, right by the path.
    | {hero} was not afraid. "Now you will see what the {trail} are for," {he} said.
    | Then {hero} smiled. "The {trail}! We only have to follow the {trail}."
    From one turn to the next, the {trail} showed them the way. At last, they saw a light between the trees.
    | They went from turn to turn, and each time one of them called, "Here!" Soon they could see the lights \
      of the village.
    | "There is one!" cried {friend}. "And there is the next!" They followed the {trail} out of the forest.
    And there came {helper} with a lamp. "There you are!" called {helper}. "I was so worried."
    | At home, {helper} opened the door. "Come in, you two!" called {helper}. "You must be hungry."
    | {helper} was waiting at the edge of the forest. "I am so glad to see you," said {helper}, and hugged \
      them both.

    "I laughed at you," said {friend}, "but you were right. Next time, I will help you."
    | "From now on, I will ask before I laugh," said {friend}.
    | "How clever you were," said {friend}. "I will never laugh at your ideas again."
    They ate [hot soup|warm bread with butter] by the fire, and everything was well.
    | It was late, but the two friends were home again.
    | {night_end}
    | {friends_end}
    """,
)

PLOTS = (
    LOST, PROMISE, SHARING, STORM, RACE, GIFT, DARK, VISITOR, GARDEN, MISTAKE, PARTY, SKILL,
    BIRD, BRIDGE, SHOW, NEIGHBOR, KITE, SNOW, MAP, SICK, QUARREL, LOST_WAY,
)  # fmt: skip
