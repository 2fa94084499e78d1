"""The JavaScript client in a real browser, over a network that fails (PROTOCOL sections 1 and 2c)."""

import shutil
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jwt
import pytest

pytestmark = pytest.mark.timeout(120)

KEY = "0123456789abcdef" * 4
STORY = " ".join(f"word-{number}" for number in range(2000))
BEGIN = """async ([tokens, pace]) => {
  const { Broker } = await import("/client.js");
  const reasons = [];
  const getToken = ({ reason }) => (reasons.push(reason), window.mint(reasons.length));
  const clock = {
    now: () => Date.now() * pace,
    setTimeout: (call, ms) => setTimeout(call, ms / pace),
    clearTimeout: (timer) => clearTimeout(timer),
  };
  const broker = new Broker({ random: () => 0.001, clock, ...(tokens && { getToken }) });
  Object.assign(window, { broker, reasons, states: [], records: [], resets: [], problems: [] });
  broker.on("state", (state) => states.push(state));
  await broker.connect();
}"""
FOLLOW = """async (agent) => {
  window.session = await broker.createSession({ agent });
  session.on("record", (record) => records.push(record));
  session.on("reset", (reset) => resets.push(reset));
  session.on("problem", (problem) => problems.push(problem));
  await session.attach();
  return session.id;
}"""
OPENED = "(times) => states.filter(({ state }) => state === 'open').length >= times"

Tab = Callable[..., Any]


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any]) -> Any:
    """A broker that looks after its connections often."""
    agents = {"echo": {"kind": "echo"}, "slow": {"kind": "echo", "delay": "10ms"}}
    return serve(agents=agents, heartbeat={"interval": "2s", "timeout": "1s"}, log={"level": "error"})


@pytest.fixture(scope="module")
def guarded(serve: Callable[..., Any]) -> Any:
    """A broker that wants tokens, which are old soon."""
    auth = {"mode": "jwt", "leeway": "0s", "keys": [{"algorithm": "HS256", "secret": KEY}]}
    return serve(plugins={"auth": auth}, log={"level": "error"})


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    """Open a tab that holds nothing but the client, connected; it is `broker` there, and its time goes at a pace."""
    contexts = []

    def begin(port: int, tokens: Callable[[int], str] | None = None, wire: Any = None, pace: int = 1) -> Any:
        contexts.append(browser.new_context())
        page = contexts[-1].new_page()
        if tokens is not None:
            page.expose_function("mint", tokens)
        if wire is not None:
            page.route_web_socket("**/ws", wire.connect)
        page.goto(f"http://127.0.0.1:{port}/livez")
        page.evaluate(BEGIN, [tokens is not None, pace])
        return page

    yield begin
    for context in contexts:
        context.close()


def opened(page: Any, times: int) -> None:
    """Wait until the client has been connected so often."""
    page.wait_for_function(OPENED, arg=times, timeout=30_000)


def essence(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(record["seq"], record["event"], record.get("turn_id"), record["data"]) for record in records]


def log_of(server: Any, session_id: str) -> list[dict[str, Any]]:
    """Return what the broker says the log of a session is, page by page."""
    log: list[dict[str, Any]] = []
    before = ""
    while not log or log[0]["seq"] > 1:
        found = server.get(f"/api/v1/sessions/{session_id}/records?limit=1000{before}")["records"]
        log = [*found, *log]
        before = f"&before_seq={log[0]['seq']}"
    return log


def test_two_hundred_reconnects_lose_double_and_reorder_nothing(tab: Tab, network: Any, server: Any) -> None:
    page = tab(network.port)
    session_id = page.evaluate(FOLLOW, "slow")
    page.evaluate("(story) => { window.turn = session.send(story); return turn.accepted; }", STORY)
    for times in range(2, 202):
        network.cut()
        opened(page, times)
    page.evaluate("async () => { await turn.cancel(); await turn; }")
    page.wait_for_function("records.at(-1)?.event === 'turn.ended'")
    seen = page.evaluate("records")
    assert network.lines > 200
    assert [record["seq"] for record in seen] == list(range(1, len(seen) + 1))
    assert essence(seen) == essence(log_of(server, session_id))
    assert page.evaluate("[resets, problems]") == [[], []]


def test_a_line_that_is_up_and_carries_nothing_is_noticed_and_replaced(tab: Tab, network: Any) -> None:
    page = tab(network.port, pace=8)
    page.evaluate(FOLLOW, "slow")
    page.evaluate("async () => { window.turn = session.send('one two three four five'); await turn.accepted; }")
    network.freeze()
    network.heal()
    opened(page, 2)
    assert page.evaluate("(async () => (await turn).outcome)()") == "completed"
    assert page.evaluate("turn.text()") == "one two three four five"
    seqs = page.evaluate("records.map(({ seq }) => seq)")
    assert seqs == list(range(1, len(seqs) + 1))


def test_what_is_sent_offline_is_accepted_once_when_it_is_over(tab: Tab, network: Any, server: Any) -> None:
    page = tab(network.port)
    session_id = page.evaluate(FOLLOW, "echo")
    page.context.set_offline(True)
    network.cut()
    page.wait_for_function("broker.state !== 'open'")
    page.evaluate("() => { window.turns = ['a', 'b', 'c'].map((text) => session.send(text)); }")
    assert page.evaluate("turns.map(({ state }) => state)") == ["waiting"] * 3
    lines = network.lines
    page.context.set_offline(False)
    outcomes = page.evaluate("async () => (await Promise.all(turns)).map(({ outcome }) => outcome)")
    assert outcomes == ["completed"] * 3
    assert network.lines > lines
    said = [record["data"]["content"] for record in log_of(server, session_id) if record["event"] == "user.message"]
    assert said == ["a", "b", "c"]


def test_a_page_that_is_left_and_come_back_to_is_the_same_page_and_goes_on(
    browser: Any, browsing: ModuleType, server: Any
) -> None:
    sleeping = browser.browser_type.launch(
        executable_path=shutil.which("chromium"),
        args=browsing.FLAGS,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    page = sleeping.new_page()
    page.goto(f"{server.url}livez")
    page.evaluate(BEGIN, [False, 1])
    session_id = page.evaluate(FOLLOW, "slow")
    page.evaluate("() => addEventListener('pageshow', ({ persisted }) => { window.slept = persisted; })")
    page.evaluate("(story) => { window.turn = session.send(story); return turn.accepted; }", STORY[:600])
    page.goto(f"{server.url}health", wait_until="commit")
    page.go_back(wait_until="commit")
    assert page.evaluate("slept"), "the browser kept no page, so there was nothing to see"
    opened(page, 2)
    assert page.evaluate("(async () => (await turn).outcome)()") == "completed"
    assert [code for code in page.evaluate("states.map(({ code }) => code)") if code] == [1001]
    assert essence(page.evaluate("records")) == essence(log_of(server, session_id))
    sleeping.close()


def test_the_close_code_alone_decides_whether_it_comes_back(tab: Tab, server: Any, browsing: ModuleType) -> None:
    wire = browsing.Wire()
    page = tab(server.port, wire=wire)
    for times, code in enumerate([1000, 1001, 1011, 1012, 1013, 3000, 4000, 4001, 4002, 4003, 4499], 2):
        wire.cut(code)
        opened(page, times)
        assert page.evaluate("broker.request('echo', { text: 'still there' })") == {"text": "still there"}
    for code in (4500, 4501, 4503, 4504, 4509, 4510, 4999):
        wire.cut(code)
        page.wait_for_function("states.at(-1).state === 'closed'")
        end = page.evaluate("states.at(-1)")
        assert (end["code"], end["reason"], end["willRetry"]) == (code, "the test cuts it", False)
        assert page.evaluate("broker.request('ping').catch(({ code }) => code)") == "disconnected"
        page.evaluate("broker.connect()")


def token(seconds: float) -> str:
    claims = {"sub": "ann", "iss": "actor-broker", "aud": "actor-broker", "iat": int(time.time()) - 1}
    return jwt.encode({**claims, "exp": int(time.time() + seconds)}, KEY, algorithm="HS256")


def test_a_token_is_renewed_before_it_is_old_and_the_line_stays(tab: Tab, guarded: Any) -> None:
    page = tab(guarded.port, tokens=lambda times: token(3 if times < 3 else 3600))
    page.wait_for_function("reasons.length >= 3", timeout=20_000)
    assert page.evaluate("broker.request('echo', 1)") == 1
    assert page.evaluate("reasons") == ["connect", "expiring", "expiring"]
    assert page.evaluate("states.filter(({ state }) => state === 'open').length") == 1


def test_a_token_that_is_refused_ends_it_and_a_new_one_begins_it(tab: Tab, guarded: Any) -> None:
    page = tab(guarded.port, tokens=lambda times: token(3600) if times != 2 else "not.a.token")
    page.evaluate("() => { broker.close(); broker.connect().catch(() => {}); }")
    page.wait_for_function("states.at(-1).code === 4500")
    assert page.evaluate("broker.state") == "closed"
    page.evaluate("broker.connect()")
    opened(page, 2)
