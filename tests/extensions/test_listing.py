"""What `broker plugins` prints, at any width."""

from broker.extensions.listing import detail, table


def row(**facts: object) -> dict[str, object]:
    given = {"name": "p", "status": "enabled", "version": None, "source": "drop-in", "location": "/p.py", "hides": None}
    return {**given, "about": None, "hooks": [], "settings": None, "error": None, **facts}


def test_a_table_wraps_hooks_under_themselves_and_tells_errors_below() -> None:
    rows = [
        row(name="wide", hooks=["on_handshake", "on_message", "connected"], hides="built-in"),
        row(name="bad", status="load error", error="load error: OSError: no\n  File ..."),
    ]
    assert table(rows, 70).splitlines() == [
        "NAME  STATUS      VERSION  SOURCE   HOOKS",
        "wide  enabled     -        drop-in  on_handshake, on_message,",
        "                                    connected",
        "bad   load error  -        drop-in  -",
        "",
        "wide: /p.py takes the place of the built-in of that name",
        "bad: load error: OSError: no (more: broker plugins bad)",
    ]
    assert max(map(len, table(rows, 10).splitlines()[:5])) <= 60


def test_a_detailed_view_has_the_whole_error_and_all_settings() -> None:
    shown = detail(row(error="load error: no\n  File", settings={"a": {"b": [1, True, None, ""]}, "c": {}}))
    assert shown.splitlines() == [
        "name:      p",
        "status:    enabled",
        "source:    drop-in",
        "location:  /p.py",
        "settings:",
        "  a:",
        '    b: [1, true, null, ""]',
        "  c: {}",
        "error:",
        "  load error: no",
        "    File",
    ]
