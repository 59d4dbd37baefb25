-- When this server put each event into the log, in ms, never less than for the event before it. What a room's history is
-- kept by, because it is nobody else's word. Of events from before this it is the time that they give, as far as it grows.
ALTER TABLE event ADD COLUMN arrived BIGINT NOT NULL DEFAULT 0;
UPDATE event SET arrived = known.arrived
FROM (SELECT room, seq, MAX(ts) OVER (PARTITION BY room ORDER BY seq) AS arrived FROM event) AS known
WHERE event.room = known.room AND event.seq = known.seq;

-- How far the logs of rooms are purged: up to this event they have state only, and what is in `purge_rest`.
CREATE TABLE purge (
    room            BIGINT NOT NULL PRIMARY KEY,
    upto            BIGINT NOT NULL                -- seq
);

-- Events without their content, purged but for their row: the log can't do without them yet.
CREATE TABLE purge_rest (
    room            BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    PRIMARY KEY (room, seq)
) WITHOUT ROWID;
