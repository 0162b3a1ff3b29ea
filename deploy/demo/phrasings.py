"""How customers put it. ``(a|b)`` is a choice, ``[a]`` may be left out, ``{slot}`` is filled in."""

# ruff: noqa: E501 (one pattern, one line)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PATTERNS: dict[str, tuple[str, ...]] = {
    "track_order": (
        "(Where is|Where's) (my order|order|parcel|my parcel) {order_id}[ (now|right now|at the moment)]?",
        "(Can you|Could you) (track|look up|check on) (order|parcel|my order) {order_id}[ for me]?",
        "(Track|Check) (order|parcel) {order_id}.",
        "(When will|When does) (order|parcel|my order) {order_id} (arrive|get here|come)?",
        "I am (still |)waiting for (order|parcel) {order_id}, (where is it|any news|is it on its way)?",
        "(What is|What's) the (status|state) of [my ](order|parcel) {order_id}?",
        "Has (order|my order|parcel) {order_id} (been shipped|left the warehouse|gone out)[ yet]?",
        "(Order|Parcel) {order_id}: (any update|any news|where is it)?",
    ),
    "cancel_order": (
        "(Cancel|Call off|Stop) [my ]order {order_id}[, {reason}].",
        "(I want|I'd like|I need|I would like) to cancel order {order_id} because {reason}.",
        "(Can you|Could you) (cancel|call off|stop) order {order_id}[, {reason}]?",
        "(I do not|I don't) (need|want) order {order_id} any more, {reason}, cancel it.",
        "Order {order_id} (can be cancelled|should be cancelled|has to be cancelled): {reason}.",
        "{reason}, so (cancel|call off) order {order_id}.",
        "Is it (still possible|too late) to cancel order {order_id}?[ {reason}.]",
    ),
    "request_refund": (
        "(I want|I'd like|I need|I would like) (a refund|my money back|a refund of {amount}|{amount} back) for order {order_id}[, {reason}].",
        "(Refund|Pay back) (order {order_id}|{amount} for order {order_id}): {reason}.",
        "(Can you|Could you) (refund me|give me back|pay me back) {amount} for order {order_id}[, {reason}]?",
        "(Can I|May I|How do I) get (a refund|my money back|{amount} back|{amount} refunded) for order {order_id}[, {reason}]?",
        "{reason}, (please refund|I want back|you owe me) {amount} (for|on) order {order_id}.",
        "Order {order_id}: {reason}. (I want my money back|A refund please|Refund me {amount}).",
        "You (charged|billed) me {amount} too much for order {order_id}, (refund it|I want it back|pay it back).",
    ),
    "change_address": (
        "(Send|Ship|Deliver) order {order_id} to {street}[, {postal_code}] in {city}[ instead].",
        "(Send|Ship|Deliver) order {order_id} to {street}, {city}[ {postal_code}].",
        "(I moved|I have moved|We moved) to {street}, {city}[ {postal_code}], (change|update) [the address of ]order {order_id}.",
        "(Can you|Could you) (change|update) the (delivery |shipping |)address (of|for) order {order_id} to {street}, {city}[, {postal_code}]?",
        "The [new ]address for order {order_id} is {street}, {city}[, postal code {postal_code}].",
        "Order {order_id} (should go|has to go|needs to go) to {street} in {city}[, code {postal_code}].",
        "Wrong address on order {order_id}, (it should be|it is) {street}, {city}[ {postal_code}].",
    ),
    "book_technician": (
        "My {appliance} (is broken|stopped working|broke down|is not working), (send|I need) (a technician|somebody|someone) (to|in) {city} {date} {time_of_day}.",
        "(Book|Schedule|Arrange) a (technician|repair|visit) (for|to fix) my {appliance} in {city} {date}[ {time_of_day}].",
        "(Can|Could) (a technician|somebody|someone) (look at|repair|fix) my {appliance} in {city} {date} {time_of_day}?",
        "(I need|I want|I'd like) (a technician|a repair) in {city} {date}[ {time_of_day}], (it is|it's) (the|my) {appliance}.",
        "The {appliance} is (broken|out of order|not working), (send somebody|I want a repair) {date}[ {time_of_day}] in {city}.",
        "(Is|Would) a (repair|visit) (of|for) my {appliance} [be ]possible {date} {time_of_day} in {city}?",
    ),
    "exchange_item": (
        "(I want|I'd like|I need|I would like) to (exchange|swap) the {item} from order {order_id} for {variant}.",
        "(Exchange|Swap) the {item} (in|of|from) order {order_id} for {variant}.",
        "(Can I|Could I|May I) (swap|exchange) the {item} (of|from|in) order {order_id} for {variant}?",
        "The {item} from order {order_id} (does not fit|is not for me|is not right), (I need|send me|can I get) {variant}.",
        "Order {order_id}: (swap|exchange) the {item} for {variant}.",
        "(Can you|Could you) send me the {item} (of|from) order {order_id} as {variant}?",
    ),
    "send_invoice": (
        "(Send|Mail|Email) (me |)the (invoice|bill|receipt) (of|for) order {order_id} to {email}.",
        "(I need|I want|I'd like) (the|an|my) (invoice|receipt|bill) for order {order_id}, (my address is|send it to|mail it to) {email}.",
        "(Can you|Could you) (send|mail) the (invoice|bill|receipt) (of|for) order {order_id} to {email}?",
        "(Invoice|Receipt|Bill) for order {order_id} to {email}.",
        "My accountant wants the (invoice|bill|receipt) of order {order_id}, (send|mail) it to {email}.",
        "I never got (a receipt|an invoice|a bill) for order {order_id}, {email} is my address.",
    ),
    "request_callback": (
        "(Call me|Call me back|Ring me|Phone me) (at|on) {phone}[ {day}][ about {topic}].",
        "(Can|Could) (somebody|someone) call me[ {day}] (at|on) {phone} about {topic}?",
        "(I want|I'd like|I need) (to talk to somebody|to speak to a person|a call|a call back)[ {day}] about {topic}, my number is {phone}.",
        "I have a question about {topic}, call {phone}[ {day}].",
        "My (number|phone) is {phone}, (call me|please ring)[ {day}] about {topic}.",
        "(Can I|May I) get a call[ {day}] (at|on) {phone}[ about {topic}]?",
    ),
}

VARIANT = "(size {size}|size {size}[ in {color}]|a {color} one|one in {color}|{color})"
"""What ``{variant}`` stands for."""

OPENERS = (
    *("", "", "", ""),
    *("Hi, ", "Hello, ", "Hey, ", "Good morning, ", "Good evening, ", "Hi there, "),
    *("Excuse me, ", "Hello! ", "Hi! ", "Sorry to bother you, ", "Dear team, ", "One question: "),
)
CLOSERS = (
    *("", "", "", ""),
    *(" Thanks!", " Thank you.", " Thanks.", " Thanks in advance.", " Please.", " Many thanks!"),
    *(" It is urgent.", " Please hurry.", " Have a nice day.", " Thank you very much!"),
)

REASONS = {
    "damaged": (
        *("it arrived broken", "it is damaged", "it came in pieces", "the screen is cracked"),
        *("there is a scratch on it", "the box was crushed"),
    ),
    "late": (
        *("it takes too long", "it is too late now", "it should be here by now"),
        *("it never arrived in time", "I have waited for weeks", "I cannot wait any longer"),
    ),
    "wrong_item": (
        *("it is the wrong article", "you sent me something else", "I chose the wrong model"),
        *("it is not what I ordered", "I picked the wrong one", "it is the wrong color"),
    ),
    "changed_mind": (
        *("I changed my mind", "I do not like it", "I do not need it", "I no longer want it"),
        *("I decided against it", "I found a better one"),
    ),
    "duplicate": (
        *("I ordered it twice", "I bought two by mistake", "I have the same one already"),
        *("it is a duplicate", "I clicked twice", "my wife ordered it too"),
    ),
    "missing_parts": (
        *("a part is missing", "the box was half empty", "the charger was not in the box"),
        *("it is not complete", "the screws are missing", "it came without the cable"),
    ),
    "poor_quality": (
        *("the quality is poor", "it feels cheap", "it fell apart after a day"),
        *("the fabric is too thin", "it is badly made", "the seams came open"),
    ),
    "too_expensive": (
        *("it is too expensive", "I saw it cheaper elsewhere", "I cannot afford it"),
        *("it costs less in another shop", "the price went down", "it is on sale now"),
    ),
}
TOPICS = {
    "billing": ("my bill", "a wrong charge", "my last payment", "the price I paid", "a bill"),
    "delivery": ("a delivery", "my parcel", "the courier", "a late parcel", "the shipping"),
    "warranty": ("the warranty", "a repair", "my guarantee", "a broken part", "spare parts"),
    "account": ("my account", "my password", "my login", "signing in", "my profile"),
}
TIMES = {
    "morning": ("in the morning", "before noon", "early", "before lunch"),
    "afternoon": ("in the afternoon", "early in the afternoon", "around three", "at about four"),
    "evening": ("in the evening", "after work", "after six", "late in the day"),
}

CITIES = _words(
    "Lisbon Porto Madrid Seville Lyon Nantes Paris Turin Milan Rome Naples Vienna Graz Prague Brno "
    "Krakow Gdansk Berlin Hamburg Munich Bremen Zurich Geneva Basel Ghent Antwerp Utrecht Leiden "
    "Oslo Bergen Malmo Uppsala Turku Tampere Riga Tartu Dublin Cork Leeds York Bristol Cardiff "
    "Glasgow Dundee Boston Denver Austin Dallas Seattle Portland Chicago Toronto Ottawa"
)
STREETS = _words(
    "Maple Oak Cedar Elm Birch Willow Chestnut Station Church Market Mill Bridge King Queen Park "
    "Garden Harbour River Lake Hill Forest Meadow School Castle Abbey Victoria Albert Orchard "
    "Tower Canal Spring Summer Winter North South Rose Linden Poplar"
)
ROADS = ("Street", "Road", "Lane", "Avenue", "Square", "Way")
APPLIANCES = (
    *("washing machine", "dishwasher", "fridge", "freezer", "oven", "dryer", "boiler", "heater"),
    *("coffee machine", "microwave", "router", "printer", "television", "air conditioner"),
    *("vacuum cleaner", "cooker", "doorbell", "alarm", "water filter", "extractor hood"),
)
ITEMS = (
    *("jacket", "rain jacket", "jeans", "shirt", "sweater", "dress", "skirt", "coat", "boots"),
    *("running shoes", "sandals", "sneakers", "gloves", "hat", "belt", "pyjamas", "raincoat"),
    *("t-shirt", "hoodie", "socks", "wetsuit", "bike helmet", "backpack", "trousers", "vest"),
)
SIZES = ("XS", "S", "M", "L", "XL", "XXL", "36", "37", "38", "39", "40", "41", "42", "43", "44")
COLORS = (
    *("black", "white", "red", "blue", "navy", "green", "olive", "grey", "brown", "beige"),
    *("pink", "purple", "yellow", "orange", "turquoise", "silver"),
)
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTHS = _words(
    "January February March April May June July August September October November December"
)
FIRST_NAMES = _words(
    "anna ben carla david elena frank grace hugo irene jonas karin leo maria nils olga paul "
    "rosa sam tina uwe vera will yara zoe alice bruno clara diego emma felix"
)
LAST_NAMES = _words(
    "abel baker costa duarte ek fischer grant hale ibsen jansen kovacs lund meyer novak olsen "
    "park quinn rossi silva tanaka ueda vogel weber young zimmer"
)
DOMAINS = ("example.com", "example.org", "example.net", "mail.example", "post.example")
