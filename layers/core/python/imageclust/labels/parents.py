"""Which WordNet hypernyms are worth showing to people, and the category each belongs to.

A class of ImageNet has up to fourteen hypernyms. Most of them help nobody: too general
("instrumentality"), a zoologist's word ("anapsid"), or the right word in another sense ("brass"
above a trombone, "convertible" above a couch). Only the names below become parents; the
categories are those of Amazon Rekognition.
"""

_BY_CATEGORY = {
    "Animals and Pets": """
        animal, mammal, canine, domestic animal, dog, hunting dog, invertebrate, bird,
        reptile, working dog, insect, terrier, aquatic bird, primate, hound, snake, sporting
        dog, ungulate, fish, wading bird, feline, monkey, shepherd dog, lizard, crustacean,
        amphibian, toy dog, beetle, game bird, spaniel, cat, spider, mollusk, big cat,
        butterfly, rodent, finch, salamander, turtle, shorebird, retriever, watchdog,
        domestic cat, ape, bird of prey, grouse, parrot, crab, aquatic mammal, wolf, fox,
        bear, shark, ray, frog, viper, waterfowl, marsupial, heron, seabird, schnauzer,
        poodle, wild dog, rabbit, antelope, great ape, thrush, newt, sea turtle, crocodilian
        reptile, rattlesnake, duck, worm, lobster, stork, sandpiper, whale, greyhound, sled
        dog, corgi, wildcat, elephant, lemur, hawk, eagle, owl, gecko, crocodile, alligator,
        dinosaur, python, cobra, pheasant, cockatoo, cuckoo, swan, kangaroo, coral, penguin,
        dolphin, seal, mastiff, bulldog, squirrel, horse, cattle, sheep, goat, camel, sloth,
        salmon, swine, arachnid, ruminant, equine
        """,
    "Apparel and Accessories": """
        clothing, garment, footwear, headdress, hat, coat, sweater, skirt, shoe, swimsuit,
        helmet, necktie, scarf, mask, undergarment, bag, boot, stocking, trouser, shirt,
        glove, nightwear, cloak, dress, jewelry, raincoat, spectacles, robe, overgarment,
        hosiery, uniform, belt, body armor, armor
        """,
    "Beauty and Personal Care": "makeup, toiletry",
    "Buildings and Architecture": """
        building, shop, dwelling, place of worship, bridge, fence, roof, tower, farm
        building, factory, fortification, theater, door, gate
        """,
    "Everyday Objects": """
        box, bottle, basket, timepiece, clock, watch, writing implement, lamp, measuring
        instrument, jug, jar, towel, fabric, lock, cleaning implement, package
        """,
    "Food and Beverage": """
        food, fruit, vegetable, edible fruit, dessert, bread, beverage, alcohol, squash,
        citrus, sandwich, sauce, wine, coffee, soup, stew, apple, berry, frozen dessert,
        cruciferous vegetable, baked goods, condiment, root vegetable, pepper, hamburger,
        produce
        """,
    "Furniture and Furnishings": """
        furniture, seat, chair, sofa, table, bed, bedroom furniture, office furniture,
        cabinet, curtain, blind, baby bed, bench, rug, cushion, bedclothes, mirror, wall
        unit, chest of drawers
        """,
    "Health and Fitness": "gymnastic apparatus, weight, medical instrument",
    "Home Appliances": "appliance, home appliance, kitchen appliance, heater, fan, oven",
    "Kitchen and Dining": """
        kitchen utensil, tableware, crockery, bowl, mug, pot, pan, knife, spoon, glass,
        drinking vessel
        """,
    "Nature and Outdoors": "geological formation, mountain, shore, reef, fungus",
    "Performing Arts": """
        musical instrument, wind instrument, stringed instrument, percussion instrument,
        keyboard instrument, guitar, piano, woodwind, bowed stringed instrument
        """,
    "Person Description": "person, athlete",
    "Plants and Flowers": "plant, flower, orchid, seed",
    "Sports": "sports equipment, game equipment, ball, golf equipment",
    "Technology and Computing": """
        electronic equipment, computer, personal computer, portable computer, telephone,
        camera, keyboard, peripheral, telescope, optical instrument, printer, communication
        system
        """,
    "Text and Documents": "publication, sign",
    "Tools and Machinery": """
        tool, hand tool, power tool, cutting implement, farm machine, drill, lifting device,
        fastener, wheel
        """,
    "Toys and Gaming": "plaything, puzzle",
    "Vehicles and Automotive": """
        vehicle, motor vehicle, car, truck, bus, van, train, locomotive, bicycle,
        motorcycle, public transport, boat, ship, sailboat, sailing vessel, aircraft,
        airplane, spacecraft, military vehicle, warship, sled, cart, trailer, tracked
        vehicle, small boat
        """,
    "Weapons and Military": "weapon, gun, firearm",
}

CATEGORY_OF: dict[str, str] = {
    " ".join(name.split()): category
    for category, names in _BY_CATEGORY.items()
    for name in names.split(",")
}
"""Plain parent name → category."""

CATEGORY_WHEN_NOTHING_ELSE = {"structure": "Buildings and Architecture"}
"""Hypernyms too general to show that still tell the category."""

OTHER_CATEGORY = "Everyday Objects"

NOT_A = frozenset({("sawmill", "plant"), ("website", "computer"), ("bubble", "ball")})
"""(class, hypernym) pairs where the hypernym is shown in another sense than WordNet's."""
