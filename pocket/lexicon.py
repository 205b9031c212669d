"""The words of the world, by slot. Lists are long on purpose: a word class that a few hundred labelled rows cannot show
whole is what pre-training has to teach."""

_WORDS: dict[str, str] = {
    # opinions, by direction and strength
    "great": """
        superb, outstanding, excellent, marvellous, wonderful, brilliant, magnificent, flawless, fantastic,
        splendid, exceptional, perfect, terrific, glorious, stunning, sublime, first-rate, top-notch,
        unbeatable, fabulous, dazzling, phenomenal, exquisite, masterful, sensational, impeccable, heavenly,
        world-class, breathtaking, peerless""",
    "fine": """
        good, pleasant, solid, decent, neat, handy, sturdy, reliable, comfortable, smooth, tidy, charming,
        agreeable, sensible, useful, nice, likeable, dependable, well-made, practical, enjoyable, fair,
        lovely, robust, elegant, quick, satisfying, thoughtful, crisp, delightful, generous, gentle, graceful,
        refreshing, impressive, effortless, cheerful""",
    "awful": """
        terrible, dreadful, appalling, atrocious, horrible, abysmal, disastrous, hopeless, useless, worthless,
        vile, wretched, ghastly, shocking, disgraceful, pathetic, miserable, laughable, unbearable, shameful,
        horrendous, lousy, rotten, hideous, woeful, deplorable, dismal, catastrophic, unusable, insulting""",
    "poor": """
        bad, weak, flimsy, clumsy, shaky, noisy, sluggish, awkward, dull, cheap-looking, unreliable,
        uncomfortable, crooked, faulty, disappointing, fragile, sloppy, annoying, mediocre, unpleasant,
        tiresome, messy, bland, brittle, careless, stiff, leaky, patchy, dreary, grubby, frustrating,
        irritating, wobbly, tacky, shoddy, tedious, murky""",
    "good": "{great}, {fine}",
    "bad": "{awful}, {poor}",
    "middling": """
        average, ordinary, so-so, acceptable, passable, unremarkable, middling, neither good nor bad, nothing
        special""",
    "love": """
        loved, adored, enjoyed, treasured, admired, praised, liked, cherished, delighted in, was thrilled
        with, was impressed by, could not fault, was charmed by, fell for, was won over by, cannot praise
        enough""",
    "hate": """
        hated, loathed, disliked, detested, regretted, cursed, despised, complained about, was let down by,
        was appalled by, could not stand, was fed up with, was annoyed by, gave up on, cannot forgive, grew
        sick of""",
    "joy": """
        worth every crown, a real treat, a joy to use, money well spent, a dream come true, a lucky find, a
        pleasure, better than I had hoped, the best that I have owned, a winner, a gem, a triumph, beyond my
        hopes, a delight from day one, a bargain, a keeper, just what I needed, a blessing in our house, ahead
        of all its rivals, made to last""",
    "woe": """
        not worth the money, a waste of time, a headache to use, money thrown away, a bad joke, a costly
        mistake, a letdown, worse than I had feared, the worst that I have owned, a failure, a dud, a
        disgrace, below all my hopes, a pain from day one, a rip-off, ready for the bin, the last thing I
        needed, a nuisance in our house, behind all its rivals, made to break""",
    "praise": """
        I would buy it again, I recommend it to everybody, five stars from me, I am keeping it for good, I
        bought a second one, my family is delighted, hats off to the makers, I cannot stop smiling, it gets my
        full marks, go and get one, we use it happily every day, I told all my friends to get one, it never
        lets me down, I am a fan for life""",
    "blame": """
        I would never buy it again, I warn everybody, one star from me, I am sending it back, I want my money
        back, my family is furious, shame on the makers, I cannot stop complaining, it gets no marks from me,
        stay away from it, it gathers dust in a drawer, I told all my friends to avoid it, it lets me down
        daily, I am done with this firm""",
    "very": "very, really, truly, quite, simply, rather, so, remarkably, utterly, plainly, honestly, downright",
    # things that are sold, and what is said about them
    "thing": """
        lamp, kettle, toaster, radio, blender, heater, fan, clock, camera, speaker, printer, keyboard, drill,
        saw, mixer, oven, vacuum, bicycle, tent, backpack, chair, desk, mattress, pillow, jacket, watch,
        headset, monitor, router, scale, grill, iron""",
    "aspect": """
        handle, lid, cable, display, battery, motor, sound, colour, finish, design, packaging, manual, switch,
        weight, size, build, price, service, material, delivery, stand, grip, filter, remote, base, cover,
        timer, menu, warranty, taste, smell, fabric""",
    "relative": """
        sister, brother, mother, father, neighbour, aunt, uncle, cousin, colleague, son, daughter, friend,
        grandmother, flatmate""",
    "room": """
        kitchen, garage, bedroom, office, garden shed, hall, attic, cellar, living room, workshop, caravan,
        bathroom""",
    "colour": "red, blue, green, black, white, grey, brown, yellow, orange, purple, silver, beige",
    "firm_kind": "Works, Group, Brothers, Stores, Labs, Supplies, Trading, Holdings, Union, Partners",
    "month": "January, February, March, April, May, June, July, August, September, October, November, December",
    "day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    "past_day": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    "season": "spring, summer, autumn, winter",
    "span": "two days, three days, a week, ten days, two weeks, a month, six weeks, half a year, a year",
    # the wider world
    "job": """
        baker, teacher, fisherman, engineer, painter, nurse, farmer, lawyer, sailor, clerk, doctor, weaver,
        miller, gardener, pilot, librarian, carpenter, tailor, singer, chemist, mason, judge, cook, driver""",
    "building": """
        library, town hall, bridge, school, museum, theatre, station, harbour, market hall, hospital, mill,
        tower, bakery, chapel""",
    "crop": """
        barley, apples, wheat, beans, cherries, potatoes, oats, plums, hops, cabbages, pears, onions, rye,
        carrots""",
    "goods": "wool, timber, glass, salt, paper, cheese, copper, rope, leather, honey, tiles, candles, cloth, tin",
    "sport": """
        rowing, football, fencing, chess, running, swimming, cycling, archery, wrestling, skating, handball,
        sailing""",
    "art": "song, play, novel, painting, poem, film, opera, sculpture, dance, photograph",
    "illness": "fever, measles, flu, asthma, gout, anaemia, migraine, bronchitis, eczema, arthritis",
    "body": "knee, shoulder, back, chest, ankle, wrist, neck, hip, elbow, stomach, throat, head",
    "big": "big, large, huge, vast, enormous, sizeable, great",
    "little": "small, little, tiny, modest, slight, narrow",
    "said": "said, explained, announced, reported, told reporters, stated, added, confirmed, declared",
    "rose": "rose, grew, climbed, increased, went up, jumped, soared",
    "fell": "fell, dropped, sank, decreased, went down, slipped, plunged",
    "began": "began, started, opened, was launched, got under way, commenced",
    "many": "many, several, dozens of, hundreds of, a number of, a lot of, scores of",
    "near": "near, close to, not far from, just outside, next to",
    "yesterday": """
        yesterday, on {past_day}, last week, this morning, on {past_date}, in {month}, last {season}, earlier
        this week""",
    "habitat": "forests, meadows, marshes, hills, caves, reed beds, orchards, riverbanks, cliffs, hedges",
    "food": "seeds, berries, beetles, snails, roots, moss, small fish, worms, nuts, grass",
    # support and clinic manners
    "hello": """
        Hello, Hi, Good morning, Good day, Dear team, Hi there, Good evening, Greetings, Dear sir or madam,
        Hello everybody""",
    "thanks": "Thank you, Thanks, Many thanks, Thanks a lot, With thanks, Kind regards, Best wishes, Cheers, Yours",
    "angry": """
        this is unacceptable, I am furious, I am very angry, this is outrageous, I am losing my patience, I am
        fed up, what a shambles, this is a disgrace, I am really upset, this makes me mad, I have had enough,
        this is beyond a joke""",
    "please_help": """
        please help, can you help, what can I do, please advise, I need your help, what should I do, please
        sort this out, please look into it, could you fix that, I would like a solution""",
}


def _entries(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split(","))


LEXICON: dict[str, tuple[str, ...]] = {name: _entries(text) for name, text in _WORDS.items()}
