-- Asks that wait for a person. No change of one concerns a node.
CREATE TABLE requests (
    id            TEXT    NOT NULL PRIMARY KEY,
    hash          BLOB    NOT NULL CHECK (length(hash) = 32), -- of the text
    identity      TEXT    NOT NULL REFERENCES identities (spiffe_id) DEFERRABLE INITIALLY DEFERRED,
    stop_number   INTEGER NOT NULL,
    node          TEXT    NOT NULL,
    action        TEXT    NOT NULL,
    resource      TEXT    NOT NULL,
    needs_owner   INTEGER NOT NULL,
    needs_person  INTEGER NOT NULL CHECK (needs_owner OR needs_person),
    owner_yes_by  TEXT,
    owner_yes_at  INTEGER CHECK ((owner_yes_at IS NULL) = (owner_yes_by IS NULL)),
    person_yes_by TEXT,
    person_yes_at INTEGER CHECK ((person_yes_at IS NULL) = (person_yes_by IS NULL)),
    no_by         TEXT    CHECK ((no_by IS NOT NULL) = (state = 'no')),
    no_at         INTEGER CHECK ((no_at IS NULL) = (no_by IS NULL)),
    state         TEXT    NOT NULL CHECK (state IN ('waiting', 'yes', 'no', 'spent')),
    asked_at      INTEGER NOT NULL,
    until         INTEGER NOT NULL,
    spent_with    BLOB    CHECK ((spent_with IS NOT NULL) = (state = 'spent')),
    CHECK (state NOT IN ('yes', 'spent') OR ((owner_yes_by IS NOT NULL OR NOT needs_owner)
        AND (person_yes_by IS NOT NULL OR NOT needs_person)))
) STRICT;

CREATE INDEX requests_by_hash ON requests (hash);

-- What they ask, word for word.
CREATE TABLE request_texts (
    hash BLOB NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    text TEXT NOT NULL
) STRICT;

CREATE TRIGGER requests_keep_their_text BEFORE UPDATE ON requests
WHEN new.hash <> old.hash OR new.identity <> old.identity OR new.asked_at <> old.asked_at
BEGIN SELECT RAISE(ABORT, 'a request never asks for something else'); END;

CREATE TRIGGER a_yes_is_spent_once BEFORE UPDATE ON requests
WHEN old.state IN ('no', 'spent')
BEGIN SELECT RAISE(ABORT, 'a request that is answered with no, or spent, never changes'); END;
