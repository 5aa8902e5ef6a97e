"""A plain script that spreads work over all workers there are.

presque worker script &
python script.py
"""

from presque import App

app = App(queue="words", keep="10m")


@app.task
def count(text: str) -> int:
    """How many words a text has."""
    return len(text.split())


if __name__ == "__main__":
    texts = [(f"line {number} of the text",) for number in range(3)]
    for pushed in count.push.many(texts):
        print(pushed.id, pushed.result(timeout=30))
