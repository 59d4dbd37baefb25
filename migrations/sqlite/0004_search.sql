-- Events with text that can be searched for, in the order of their commits. Those above `head.indexed` aren't in the index
-- yet; they get there in bulk.
CREATE TABLE searchable (
    position        INTEGER NOT NULL PRIMARY KEY,
    room            BIGINT NOT NULL,
    seq             BIGINT NOT NULL
);
CREATE UNIQUE INDEX searchable_event ON searchable (room, seq);

INSERT INTO searchable (position, room, seq)
SELECT position, room, seq FROM event
WHERE verdict = 0
  AND redacted_by IS NULL
  AND pdu ->> '$.type' IN ('m.room.message', 'm.room.name', 'm.room.topic')
ORDER BY position;

-- The words of each event by its position, without the text and without where in it they are. Words that begin with
-- U+E000 say in which room and under which key an event has its text.
CREATE VIRTUAL TABLE message_index USING fts5 (
    words,
    content = '',
    detail = none,
    columnsize = 0,
    tokenize = 'unicode61 remove_diacritics 2'
);
-- What is taken out of the index is gone from the disk too.
INSERT INTO message_index (message_index, rank) VALUES ('secure-delete', 1);

ALTER TABLE head ADD COLUMN indexed BIGINT NOT NULL DEFAULT 0;
