-- What is said of events by others: edits, reactions, threads, references. `parent` is the id of an event of the room, which
-- this server may not have (yet). Only what counts is here: nothing of redacted children, no edit without new content.
CREATE TABLE relation (
    room            BIGINT NOT NULL,
    parent          TEXT   NOT NULL,
    rel_type        TEXT   NOT NULL,
    seq             BIGINT NOT NULL,               -- of the child
    kind            TEXT   NOT NULL,               -- its type
    sender          TEXT   NOT NULL,
    ts              BIGINT NOT NULL,               -- its origin_server_ts
    PRIMARY KEY (room, parent, rel_type, seq)
) WITHOUT ROWID;
CREATE INDEX relation_seq ON relation (room, seq);

INSERT INTO relation (room, parent, rel_type, seq, kind, sender, ts)
SELECT room,
       pdu ->> '$.content."m.relates_to".event_id',
       pdu ->> '$.content."m.relates_to".rel_type',
       seq,
       pdu ->> '$.type',
       pdu ->> '$.sender',
       pdu ->> '$.origin_server_ts'
FROM event
WHERE pdu LIKE '%"m.relates_to"%'
  AND verdict = 0
  AND redacted_by IS NULL
  AND json_type(pdu, '$.state_key') IS NULL
  AND json_type(pdu, '$.content."m.relates_to".event_id') = 'text'
  AND json_type(pdu, '$.content."m.relates_to".rel_type') = 'text'
  AND (
      pdu ->> '$.content."m.relates_to".rel_type' <> 'm.replace'
      OR json_type(pdu, '$.content."m.new_content"') = 'object'
      OR pdu ->> '$.type' = 'm.room.encrypted'
  )
ORDER BY 1, 2, 3, 4;
