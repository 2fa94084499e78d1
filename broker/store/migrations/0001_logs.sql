-- Marks the file as ours ("BRKR"), so that another program's database is never taken for a store.
PRAGMA application_id = 1112689490;

-- `head` outlives the records: a number that was given once is never given again.
CREATE TABLE logs (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    epoch      TEXT    NOT NULL,
    head       INTEGER NOT NULL,
    floor      INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);

-- In the order of their writing, with an index to find them: many logs written together then share pages,
-- where a table clustered by log would dirty a page for each of them in every commit. Measured with 100 sessions,
-- a turn costs a quarter less CPU, and a page of replay is read no slower while its pages are in memory.
CREATE TABLE records (
    log     INTEGER NOT NULL REFERENCES logs (id),
    seq     INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    turn_id TEXT,
    author  BLOB,
    data    BLOB    NOT NULL,
    PRIMARY KEY (log, seq)
);

-- A conversation's history is a few of its records.
CREATE INDEX messages ON records (log, seq) WHERE kind IN ('user.message', 'message.completed');

CREATE TABLE sessions (
    log           INTEGER PRIMARY KEY REFERENCES logs (id),
    session_id    TEXT    NOT NULL,
    owner         TEXT,
    agent         TEXT    NOT NULL,
    workspace_dir TEXT,
    title         TEXT,
    variables     BLOB    NOT NULL,
    closed        INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
);
CREATE INDEX newest_sessions ON sessions (created_at, session_id);
CREATE INDEX newest_sessions_of_owner ON sessions (owner, created_at, session_id);

-- `seq` is the number of the turn's `user.message`: the order in which turns were accepted.
CREATE TABLE turns (
    log           INTEGER NOT NULL REFERENCES logs (id),
    seq           INTEGER NOT NULL,
    turn_id       TEXT    NOT NULL,
    user          TEXT,
    client_msg_id TEXT    NOT NULL,
    digest        BLOB    NOT NULL,
    state         TEXT    NOT NULL,
    outcome       TEXT,
    content       BLOB,
    PRIMARY KEY (log, seq)
);

-- What a restart has to look at, however many turns have ended.
CREATE INDEX open_turns ON turns (log) WHERE outcome IS NULL;
