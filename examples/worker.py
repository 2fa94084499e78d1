from broker.client import Turn, Worker


class Shout(Worker):
    agent = "shout"

    async def answer(self, turn: Turn):
        for word in turn.text.split():
            yield word.upper() + " "


Shout().run("ws://127.0.0.1:3000/agent")
