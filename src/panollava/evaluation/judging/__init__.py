"""A language model as a judge of answers: what it is asked, how its replies are read, what follows. No torch here.

    prompt.py    the prompt: a text file with three places
    asking.py    how they are filled in for each answer
    reading.py   a reply -> a score from 0 to 100, or none
    scores.py    scores -> metrics with controls; agreement of two judges

The model itself: `evaluation.run_judge`.
"""
