-- Whom a session's owner shares it with: a JSON object of user and role. The default is '{}', as bytes.
ALTER TABLE sessions ADD COLUMN members BLOB NOT NULL DEFAULT x'7B7D';

-- Data of all records ever written, which a quota is counted against. Of what was trimmed before, nothing is known.
ALTER TABLE logs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE logs SET bytes = (SELECT coalesce(sum(length(data)), 0) FROM records WHERE records.log = logs.id);

-- What was edited, or replaced by the agent, belongs to a conversation's history too. Not `kind IN (...)`: for more
-- than two kinds SQLite looks them up in a table of its own, which makes every record a quarter dearer to write.
DROP INDEX messages;
CREATE INDEX messages ON records (log, seq)
    WHERE kind = 'user.message' OR kind = 'turn.edited' OR kind = 'message.completed' OR kind = 'message.replaced';
