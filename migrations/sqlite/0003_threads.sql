-- Threads are counted when they grow and not when they are read, and what is asked of relations is one step in an index:
-- somebody's latest edit, whether somebody takes part in a thread, whether somebody has annotated an event so already.
-- Edits without new content are kept: they are no edits, but they relate.
DROP TABLE relation;
CREATE TABLE relation (
    room            BIGINT NOT NULL,
    parent          TEXT   NOT NULL,               -- event id; maybe of an event that isn't here
    seq             BIGINT NOT NULL,               -- of the child
    event_id        TEXT   NOT NULL,               -- of the child, like all that follows
    rel_type        TEXT   NOT NULL,
    kind            TEXT   NOT NULL,               -- its type
    sender          TEXT   NOT NULL,
    ts              BIGINT NOT NULL,               -- its origin_server_ts
    key             TEXT,                          -- of an m.annotation
    replaces        BOOLEAN NOT NULL,              -- an m.replace that has what an edit needs
    early           BOOLEAN NOT NULL,              -- it came before its parent, which may never come
    PRIMARY KEY (room, parent, seq)
) WITHOUT ROWID;
CREATE INDEX relation_by ON relation (room, parent, rel_type, sender, kind, ts, event_id);
CREATE INDEX relation_seq ON relation (room, seq);
CREATE INDEX relation_early ON relation (room) WHERE early;

CREATE TABLE thread (
    room            BIGINT NOT NULL,
    root            TEXT   NOT NULL,               -- event id
    oldest          BIGINT NOT NULL,               -- seq of the first reply
    latest          BIGINT NOT NULL,               -- … and of the last
    replies         BIGINT NOT NULL,
    PRIMARY KEY (room, root)
) WITHOUT ROWID;
CREATE INDEX thread_latest ON thread (room, latest);

INSERT INTO relation (room, parent, seq, event_id, rel_type, kind, sender, ts, key, replaces, early)
SELECT c.room, c.parent, c.seq, c.event_id, c.rel_type, c.pdu ->> '$.type', c.pdu ->> '$.sender',
       c.pdu ->> '$.origin_server_ts',
       CASE WHEN c.rel_type = 'm.annotation' AND json_type(c.pdu, '$.content."m.relates_to".key') = 'text'
            THEN c.pdu ->> '$.content."m.relates_to".key' END,
       c.rel_type = 'm.replace' AND (c.pdu ->> '$.type' = 'm.room.encrypted'
                                     OR json_type(c.pdu, '$.content."m.new_content"') IS 'object'),
       NOT EXISTS (SELECT 1 FROM event p WHERE p.event_id = c.parent AND p.room = c.room AND p.seq < c.seq)
FROM (
    SELECT room, seq, event_id, pdu,
           pdu ->> '$.content."m.relates_to".event_id' AS parent,
           pdu ->> '$.content."m.relates_to".rel_type' AS rel_type
    FROM event
    WHERE verdict = 0 AND redacted_by IS NULL AND pdu LIKE '%"m.relates_to"%'
      AND json_type(pdu, '$.state_key') IS NULL
      AND json_type(pdu, '$.content."m.relates_to".event_id') = 'text'
      AND json_type(pdu, '$.content."m.relates_to".rel_type') = 'text'
) c
WHERE c.parent LIKE '$_%' AND length(CAST(c.parent AS BLOB)) <= 255
  AND c.rel_type <> '' AND length(CAST(c.rel_type AS BLOB)) <= 255
  AND instr(c.parent, char(0)) = 0 AND instr(c.rel_type, char(0)) = 0;

INSERT INTO thread (room, root, oldest, latest, replies)
SELECT room, parent, MIN(seq), MAX(seq), COUNT(*) FROM relation WHERE rel_type = 'm.thread' GROUP BY room, parent;
