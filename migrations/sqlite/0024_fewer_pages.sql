-- What a message needs at once is written at once; what only makes it easy to find follows in bulk, many rows a page, with the
-- entries of the queues (`delivery`).

-- Which events of a room happened when.
CREATE TABLE event_time (
    room            BIGINT NOT NULL,
    ts              BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    PRIMARY KEY (room, ts, seq)
) WITHOUT ROWID;
-- Outliers have no place in the log, and are looked for by no time.
INSERT INTO event_time (room, ts, seq)
SELECT room, ts, seq FROM event WHERE seq > -1099511627776 ORDER BY room, ts, seq;
DROP INDEX event_ts;

-- Whether the event has text that can be searched for, and the path of the transaction that it answers.
ALTER TABLE delivery ADD COLUMN searchable BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE delivery ADD COLUMN txn_path BIGINT;
-- A row's position is that of its event.
DROP INDEX searchable_event;

-- JSON: [recipient * 65536 + flags, …]. It was [[recipient, flags], …].
UPDATE delivery SET recipients = (
    SELECT json_group_array((r.value ->> 0) * 65536 + (r.value ->> 1)) FROM json_each(delivery.recipients) r
);

-- Most rooms have one end, which is their last event: they have one row that says so (9223372036854775807), and no message
-- has to change it.
UPDATE extremity SET event = 9223372036854775807
WHERE event = (SELECT MAX(e.seq) FROM event e WHERE e.room = extremity.room AND e.seq > -1099511627776)
  AND room IN (SELECT room FROM extremity GROUP BY room HAVING COUNT(*) = 1);
