-- In rooms of versions 1 and 2 whoever makes an event chooses its id: events of two rooms may have the same.
CREATE TABLE event_of_room (
    room            BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    event_id        TEXT   NOT NULL,
    position        BIGINT NOT NULL,
    pdu             TEXT   NOT NULL,
    verdict         SMALLINT NOT NULL DEFAULT 0,
    redacted_by     BIGINT,
    sender_device   BIGINT,
    txn_id          TEXT,
    ts              BIGINT NOT NULL DEFAULT 0,
    arrived         BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (room, seq),
    UNIQUE (event_id, room)
);
INSERT INTO event_of_room
    (room, seq, event_id, position, pdu, verdict, redacted_by, sender_device, txn_id, ts, arrived)
SELECT room, seq, event_id, position, pdu, verdict, redacted_by, sender_device, txn_id, ts, arrived
FROM event ORDER BY rowid;
DROP TABLE event;
ALTER TABLE event_of_room RENAME TO event;
