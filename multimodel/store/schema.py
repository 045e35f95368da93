"""The tables. A file knows the number of its version, `PRAGMA user_version`; each of MIGRATIONS leads to the next."""

from __future__ import annotations

APPLICATION = 0x4D4D4348  # PRAGMA application_id: "MMCH"

FIRST = """
CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,              -- a hash of the secret of the visitor's browser
    title TEXT NOT NULL DEFAULT '',   -- empty while nothing was asked
    created REAL NOT NULL,            -- seconds since 1970, here and below
    updated REAL NOT NULL,
    pinned INTEGER NOT NULL DEFAULT 0,
    deleted REAL
);
CREATE INDEX conversations_of_owner ON conversations (owner, updated);

CREATE TABLE states (
    conversation TEXT NOT NULL,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL,               -- a State as JSON
    PRIMARY KEY (conversation, revision)
) WITHOUT ROWID;

CREATE TABLE turns (
    number INTEGER PRIMARY KEY,
    conversation TEXT NOT NULL,
    id INTEGER NOT NULL,
    parent INTEGER,
    lane TEXT NOT NULL,               -- the key of the column
    at REAL NOT NULL,
    prompt TEXT NOT NULL,
    model TEXT NOT NULL,
    asked TEXT NOT NULL,              -- Options as JSON
    text TEXT NOT NULL DEFAULT '',    -- these three once the answer has ended; until then it is in `pieces`
    reasoning TEXT NOT NULL DEFAULT '',
    ending TEXT,                      -- an Ending as JSON
    UNIQUE (conversation, id)
);

CREATE TABLE pieces (
    conversation TEXT NOT NULL,
    turn INTEGER NOT NULL,
    number INTEGER NOT NULL,
    text TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    ttft REAL,
    total REAL,
    PRIMARY KEY (conversation, turn, number)
) WITHOUT ROWID;

CREATE TABLE logprobs (
    conversation TEXT NOT NULL,
    turn INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (conversation, turn, number)
) WITHOUT ROWID;

CREATE VIRTUAL TABLE words USING fts5 (
    prompt, text, content = 'turns', content_rowid = 'number', tokenize = "unicode61 remove_diacritics 2"
);
CREATE TRIGGER turn_ended AFTER UPDATE OF ending ON turns WHEN old.ending IS NULL BEGIN
    INSERT INTO words (rowid, prompt, text) VALUES (new.number, new.prompt, new.text);
END;
CREATE TRIGGER turn_removed AFTER DELETE ON turns WHEN old.ending IS NOT NULL BEGIN
    INSERT INTO words (words, rowid, prompt, text) VALUES ('delete', old.number, old.prompt, old.text);
END;
"""

SECOND = """
CREATE TABLE votes (
    number INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    conversation TEXT NOT NULL,
    at REAL NOT NULL,
    turns TEXT NOT NULL,              -- JSON: the answers that were compared; their newest vote counts
    best INTEGER,                     -- the one of them that is best; none for a tie, or where all are bad
    body TEXT NOT NULL                -- a Ballot as JSON
);
CREATE INDEX votes_of_owner ON votes (owner, conversation);
"""

KEPT = """
CREATE TABLE waiting (
    conversation TEXT PRIMARY KEY,
    body TEXT NOT NULL                -- prompts that wait until all columns have answered, as JSON
) WITHOUT ROWID;

CREATE TABLE shelf (                  -- what a visitor keeps under names
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,               -- "preset" or "prompt"
    name TEXT NOT NULL,
    at REAL NOT NULL,
    chosen INTEGER NOT NULL DEFAULT 0,  -- whether it is the one of its kind that new chats begin with
    body TEXT NOT NULL,               -- a Preset or a Prompt as JSON
    PRIMARY KEY (owner, kind, name)
) WITHOUT ROWID;
"""

RANKED = """
ALTER TABLE votes ADD COLUMN topic TEXT NOT NULL DEFAULT '';         -- of the prompt
ALTER TABLE conversations ADD COLUMN tag TEXT NOT NULL DEFAULT '';   -- a topic that the person gave
"""

ATTACHED = """
CREATE TABLE blobs (
    hash TEXT PRIMARY KEY,            -- SHA-256 of the body, in hexadecimal
    body BLOB NOT NULL                -- the text of a file in UTF-8, or a picture
);
ALTER TABLE turns ADD COLUMN files TEXT NOT NULL DEFAULT '[]';    -- JSON: what went with the prompt; bodies in blobs
ALTER TABLE turns ADD COLUMN results TEXT NOT NULL DEFAULT '[]';  -- JSON: the results of calls that it told
"""

FAIRLANES = """
CREATE TABLE fairlanes (
    conversation TEXT NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL,               -- a FairLane as JSON
    PRIMARY KEY (conversation, number)
) WITHOUT ROWID;
"""

CALLED = """
ALTER TABLE pieces ADD COLUMN calls TEXT NOT NULL DEFAULT '';  -- JSON: all calls so far, where there are more of them
"""

MIGRATIONS = (FIRST, SECOND, KEPT, RANKED, ATTACHED, FAIRLANES, CALLED)
