-- Whether strangers may know who is in a room: anybody can join it or read it.
ALTER TABLE room ADD COLUMN open BOOLEAN NOT NULL DEFAULT FALSE;

UPDATE room SET open = TRUE
WHERE EXISTS (
    SELECT 1 FROM state_log s JOIN event e ON e.room = s.room AND e.seq = s.event
    WHERE s.room = room.id AND s.state_key = ''
      AND (
          (s.type = 'm.room.join_rules' AND e.pdu ->> '$.content.join_rule' = 'public')
          OR (s.type = 'm.room.history_visibility' AND e.pdu ->> '$.content.history_visibility' = 'world_readable')
      )
      AND s.seq = (
          SELECT MAX(l.seq) FROM state_log l WHERE l.room = s.room AND l.type = s.type AND l.state_key = ''
      )
);

-- Display names as they are compared: in lower case.
CREATE TABLE user_name (
    recipient       BIGINT NOT NULL PRIMARY KEY,
    name            TEXT   NOT NULL
);
INSERT INTO user_name (recipient, name)
SELECT recipient, lower(value ->> '$') FROM profile WHERE field = 'displayname';

-- The origin_server_ts of each event, for jumping to a date.
ALTER TABLE event ADD COLUMN ts BIGINT NOT NULL DEFAULT 0;
UPDATE event SET ts = COALESCE(pdu ->> '$.origin_server_ts', 0);
CREATE INDEX event_ts ON event (room, ts, seq);

-- What users reported to the operator.
CREATE TABLE report (
    id              INTEGER NOT NULL PRIMARY KEY,
    created_ts      BIGINT NOT NULL,
    reporter        TEXT   NOT NULL,               -- user id
    room_id         TEXT,
    event_id        TEXT,
    user_id         TEXT,
    reason          TEXT   NOT NULL
);
