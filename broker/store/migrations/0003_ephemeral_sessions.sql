-- Sessions that end with the connection that made them: those which a crash left open are closed at the next start.
ALTER TABLE sessions ADD COLUMN ephemeral INTEGER NOT NULL DEFAULT 0;
CREATE INDEX ephemeral_sessions ON sessions (log) WHERE ephemeral AND NOT closed;
