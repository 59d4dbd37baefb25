-- Where the history that this server has begins, or goes on after it was out of a room: the event `seq` follows events that
-- aren't here. All events up to `floor` are older than what is missing. `ends` are the events to ask others for.
CREATE TABLE hole (
    room            BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    floor           BIGINT NOT NULL,
    ends            TEXT   NOT NULL,               -- JSON: event ids
    PRIMARY KEY (room, seq)
) WITHOUT ROWID;

-- What others said of a room that this server isn't in, when they invited somebody: JSON, stripped events.
ALTER TABLE room ADD COLUMN hearsay TEXT;
