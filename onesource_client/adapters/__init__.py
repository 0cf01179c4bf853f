"""Histories of agent frameworks, kept by onesource. Each needs its library: `pip install onesource-client[NAME]`.

onesource keeps turns: a question and its answer, both text. What a framework adds is stored as soon as it makes a whole
turn; until then it is kept in memory, and the framework sees it. Of a stored turn the texts are kept, and not calls of
tools and their results, reasoning, images and files, names and metadata. A question and an answer have up to 65,536
characters; items that make a longer one are refused with InvalidRequest, and nothing is stored.
"""
