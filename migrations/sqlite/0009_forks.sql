-- The state before each event that didn't follow all events without a follower when it came; before any other event it is
-- the room's state at the seq before. States are shared: rows of `state_snapshot` are named by what they hold.
CREATE TABLE event_state (
    room            BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    hash            TEXT   NOT NULL,
    PRIMARY KEY (room, seq)
) WITHOUT ROWID;

CREATE TABLE state_snapshot (
    hash            TEXT   NOT NULL PRIMARY KEY,   -- SHA-256 of room and events
    events          TEXT   NOT NULL                -- JSON: the seqs of the state events, ascending
);

-- Redactions that came before their target.
CREATE TABLE held_redaction (
    room            BIGINT NOT NULL,
    target          TEXT   NOT NULL,               -- event id
    seq             BIGINT NOT NULL,               -- of the redaction
    PRIMARY KEY (room, target, seq)
) WITHOUT ROWID;

-- Changes of the state that are no event of that seq: state resolution chose another event. Event 0 is none: the state has
-- nothing under the key any more.
CREATE INDEX state_log_silent ON state_log (room, seq) WHERE event <> seq;
