"""Tuning: the cheapest settings that keep the answers right, found on questions made from the user's own documents.

    sampling     passages worth asking about, spread over the documents
    writing      a passage to one question and its answer, by the reader
    vetting      the rules a pair must pass, and how good a set of questions is, with no model but the encoder
    bounds       a reader that stops at so many calls or seconds
    generation   passages to checked pairs
    pairs        the file that keeps them, which people may edit
    trials       one configuration on one question
    halving      which configurations deserve more questions
    search       trials by successive halving, within bounds on reader calls and time
    frontier     what was found: quality against tokens, and what to use
    tuning       all of it, from end to end
"""
