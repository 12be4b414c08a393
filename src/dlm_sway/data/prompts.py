"""Prompts that sway uses when the user names none.

`GENERAL_PROMPTS` are the inputs of `delta_kl` without `prompts`, and of a calibration that has no spec to take
its inputs from. They ask for nothing in particular on purpose: questions, instructions, openings of a text, a
little code and two other languages, so that a change that reaches ordinary inputs shows on some of them.
`SHORT_PROMPTS` are for the quick looks that precede a measurement (the numeric floor, a smoke run), where a
handful of short rows is enough.

Both are fixed: a result names the version of sway, and so its inputs. A change here changes every default figure.
"""

from __future__ import annotations

GENERAL_PROMPTS: tuple[str, ...] = (
    "What is the difference between weather and climate, and why do people so often confuse them?",
    "Write a short letter to a landlord about a radiator that has been cold since November.",
    "The train had already left when she noticed that her suitcase was",
    'def median(values):\n    """Return the middle value of a list of numbers, or None when it is empty."""\n',
    "Explain to a ten-year-old how vaccines teach the body to recognise an illness.",
    "List five things that a beginner should check before buying a used bicycle.",
    "In the early years of the nineteenth century, most people in Europe lived in",
    "Could you summarise the main arguments for and against a four-day working week?",
    "Translate into French: The shop on the corner closes early on Sundays, but the bakery does not.",
    "My neighbour plays loud music after midnight. How should I raise it without starting a quarrel?",
    "Once the dough has doubled in size, turn it out on a floured board and",
    "Which planet in the solar system has the most moons, and how were they found?",
    "¿Cuáles son las ventajas y los inconvenientes de vivir en una ciudad pequeña?",
    "A shirt costs 40 dollars and is reduced by 15 percent. What is the new price? Show each step.",
    "The committee met on Thursday to discuss the budget, and after two hours it decided",
    "Suggest three names for a small café that also repairs umbrellas, and say why each would suit it.",
    "SELECT customer_id, COUNT(*) AS orders FROM purchases WHERE purchased_at >= '2023-01-01' GROUP BY",
    "What should I do first if somebody near me faints in a crowded, overheated room?",
    "Dear Dr. Alvarez, thank you for agreeing to speak at our meeting in March. I am writing to",
    "Compare the ways in which a novel and a film can show what a character is thinking.",
    "The old map showed a path through the marsh, though nobody in the village",
    "How does a refrigerator keep food cold even though its motor gives off heat?",
    "Rewrite this sentence so that it sounds more polite: Send me the report by noon or else.",
    "Erkläre in einfachen Worten, warum Brot beim Backen aufgeht und wozu man Hefe braucht.",
    "User: I slept badly and have an exam at nine. Any advice?\nAssistant: I am sorry to hear that. First,",
    "According to the report, sales rose by four percent in the spring, mainly because",
    "Name a law of physics that you find surprising, and describe an experiment that shows it.",
    "for line in open(path, encoding='utf-8'):\n    # skip comments and blank lines\n    if line.startswith('#') or",
    "Is it better to learn one foreign language well or three of them badly? Give your reasons.",
    "Ingredients: two onions, a tin of tomatoes, olive oil, basil. Method: first, chop the onions and",
    "She had never liked the colour of the kitchen, but it was only after the winter that",
    "Plan a walk of two hours through a city that you know, with one stop for coffee.",
)
"""Thirty-two prompts of 8 to 25 words."""

SHORT_PROMPTS: tuple[str, ...] = (
    "The capital of France is a city on",
    "How do I boil an egg without cracking it?",
    "Yesterday evening, on the way home, we saw",
    "Write one sentence about the sea in winter.",
    "import json\n\nwith open('settings.json') as handle:\n    settings =",
    "The main reason that most plans fail is",
)
"""Six prompts of 6 to 10 words."""
