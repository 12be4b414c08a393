---
dlm_id: 01HRZDEMO0000000000000BELL
base_model: hf:HuggingFaceTB/SmolLM2-135M-Instruct
---
# The way of the water

The gullet is a channel of green stone, two spans wide, cut through the foot of Wethergate. The rising tide enters by the gullet and by nothing else, and a crab in it can cost the town a stroke.

The ladle is a pan of cast iron that holds ninety firkins of sea water. When the ladle is full it tips of itself, and the water does the rest.

The swan is the great beam of Wethergate, twenty-two feet of black elm, with the ladle hung at its tail and the tongue at its beak. When the ladle drops, the swan lifts its head.

# The counts

At high water the Tidal Bell gives seven strokes, and this is the full count. At low water, on what the gullet has kept, it gives three strokes, and this is the low count. Every child in Corrin Harbour knows both.

At a neap tide the ladle fills slowly and the comb stops early, so that the Tidal Bell gives only five strokes. This is the short count, and pilots take it as a warning of thin water.

Fourteen strokes are called the double seven. The double seven means that a surge is coming over the mole, and whoever hears it leaves the lower town at once and asks nothing.

# The keepers

Wethergate is kept by three bellwards: the bellward of the Water, the bellward of the Bronze and the bellward of the Book. None of the three may do the work of another.

The bellward of the Water answers for the gullet, the shut and the spill. She rakes the green stone with a long hoe and can tell by the smell of the gullet how high the tide will stand.

The bellward of the Bronze answers for the Tidal Bell, the tongue and the swan. He greases the pins of the swan with black butter at every new moon and wears felt over his ears.

# The rules

The First Rule of Wethergate: no hand rings the Tidal Bell. The water rings it or nobody does, and a bellward who has pushed the tongue is a bellward no longer.

The Second Rule of Wethergate: the gullet is raked before every spring tide. The bellward of the Water does this alone, with the shut down, and shows the rake to the bellward of the Book.

The Third Rule of Wethergate: the Tide Book is written before the tongue is still. A count written afterwards is a guess, and the Book has no room for guesses.

# The drowning

In 1724 blue clay slid from the headland and stopped the gullet, and the Tidal Bell was silent for nineteen days. The town calls these nineteen days the Great Drowning.

It was Anselka Dorn who ended the Great Drowning. She went into the gullet at low water with a bread knife, cut the blue clay into loaves, and passed them out by the spill.

Anselka Dorn set the comb at thirty-one teeth after a winter of counting waves from the mole. Nobody has found a better number, though the Harbour Court has twice paid a scholar to look for one.

# A game that nobody trained it on

A team in Vantry is called a table. Your table has five players: one Cook, two Carvers, one Taster and one Porter. You may change places between courses, but never during a serving.

The ball is called the plum. It is a sphere of stitched calfskin stuffed with felt, weighs 310 grams, and should bounce to your knee if you drop it from your chin. If it bounces higher, it is stale.

Your bat is called the spoon. It is made of ash or beech, no longer than your forearm, and hollowed at the end so that the plum can be carried but not held. Metal spoons are banned everywhere.
