-- Integers stand for users (`recipient`) and rooms (`room.id`) wherever a row is written for every message, so that a
-- queue entry is a few bytes. All of them, and every position, are assigned by the server, never by the database.
-- `position` values order all writes of the store: position order is commit order.

CREATE TABLE server (
    name            TEXT   NOT NULL PRIMARY KEY,   -- server_name, epoch
    value           TEXT   NOT NULL
);

-- One row: the last position that was given out. It outlives trimmed queues, so no position is ever used twice.
CREATE TABLE head (
    id              BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    position        BIGINT NOT NULL,
    settled         BIGINT NOT NULL                -- deliveries up to here are in `queue` and `unread`
);
INSERT INTO head (id, position, settled) VALUES (1, 0, 0);

-- When positions were given out, to the hour: turns the horizon of queues from a time into a position.
CREATE TABLE head_history (
    hour            BIGINT NOT NULL PRIMARY KEY,   -- Unix time in ms, whole hours
    position        BIGINT NOT NULL
);

-- Numbers that are never given out twice, even when what carried them is gone.
CREATE TABLE counter (
    name            TEXT   NOT NULL PRIMARY KEY,
    value           BIGINT NOT NULL                -- the last one given out
);
INSERT INTO counter (name, value) VALUES ('device', 0);
-- How often sessions were ended: a server that sees others end some looks at its own again.
INSERT INTO counter (name, value) VALUES ('sessions ended', 0);

---- Accounts ----

CREATE TABLE account (
    recipient       BIGINT NOT NULL PRIMARY KEY,
    user_id         TEXT   NOT NULL UNIQUE,
    password_hash   TEXT,                          -- argon2id in PHC form; NULL: no password login
    admin           BOOLEAN NOT NULL DEFAULT FALSE,
    created_ts      BIGINT NOT NULL,
    deactivated_ts  BIGINT,                        -- set: no login any more
    departed        BOOLEAN NOT NULL DEFAULT FALSE, -- a deactivated user has left all rooms
    erased          BOOLEAN NOT NULL DEFAULT FALSE,
    locked          BOOLEAN NOT NULL DEFAULT FALSE,
    suspended       BOOLEAN NOT NULL DEFAULT FALSE,
    trimmed         BIGINT NOT NULL DEFAULT 0      -- queue entries at or below are gone
);
CREATE INDEX account_to_depart ON account (recipient) WHERE deactivated_ts IS NOT NULL AND NOT departed;

CREATE TABLE device (
    recipient       BIGINT NOT NULL,
    device_id       TEXT   NOT NULL,
    id              BIGINT NOT NULL UNIQUE,        -- short name for rows that mention a device
    display_name    TEXT,
    created_ts      BIGINT NOT NULL,
    last_seen_ts    BIGINT,
    last_seen_ip    TEXT,
    last_seen_agent TEXT,
    position        BIGINT NOT NULL DEFAULT 0,     -- its cursor: the last position it has presented
    PRIMARY KEY (recipient, device_id)
);

-- Only SHA-256 hashes of tokens are stored.
CREATE TABLE access_token (
    hash            TEXT   NOT NULL PRIMARY KEY,
    recipient       BIGINT NOT NULL,
    device          BIGINT NOT NULL,
    expires_ts      BIGINT,                        -- NULL: never
    refresh_hash    TEXT                           -- the refresh token that was handed out with it
);
CREATE INDEX access_token_device ON access_token (device);

CREATE TABLE refresh_token (
    hash            TEXT   NOT NULL PRIMARY KEY,
    recipient       BIGINT NOT NULL,
    device          BIGINT NOT NULL,
    next_hash       TEXT,                          -- set once it was exchanged: the refresh token it gave
    spent           BOOLEAN NOT NULL DEFAULT FALSE, -- what it was exchanged for has been used: using it again is theft
    created_ts      BIGINT NOT NULL
);
CREATE INDEX refresh_token_device ON refresh_token (device);

CREATE TABLE registration_token (
    token           TEXT   NOT NULL PRIMARY KEY,
    uses_allowed    BIGINT,                        -- NULL: any number
    used            BIGINT NOT NULL DEFAULT 0,
    expires_ts      BIGINT,
    makes_admin     BOOLEAN NOT NULL DEFAULT FALSE,
    created_ts      BIGINT NOT NULL
);

CREATE TABLE profile (
    recipient       BIGINT NOT NULL,
    field           TEXT   NOT NULL,               -- displayname, avatar_url, m.tz, custom
    value           TEXT   NOT NULL,               -- JSON
    PRIMARY KEY (recipient, field)
);

-- `room` 0 is global account data. `changed` is the position of the last write: queue entries point at it.
CREATE TABLE account_data (
    recipient       BIGINT NOT NULL,
    room            BIGINT NOT NULL,
    type            TEXT   NOT NULL,
    content         TEXT   NOT NULL,
    changed         BIGINT NOT NULL,
    PRIMARY KEY (recipient, room, type)
);
CREATE INDEX account_data_changed ON account_data (recipient, changed);

CREATE TABLE filter (
    recipient       BIGINT NOT NULL,
    id              BIGINT NOT NULL,               -- 1, 2, 3 … per user
    content         TEXT   NOT NULL,
    PRIMARY KEY (recipient, id),
    UNIQUE (recipient, content)
);

---- The room log ----

CREATE TABLE room (
    id              BIGINT NOT NULL PRIMARY KEY,
    room_id         TEXT   NOT NULL UNIQUE,
    version         TEXT   NOT NULL,
    published       BOOLEAN NOT NULL DEFAULT FALSE -- in the public directory
);
CREATE INDEX room_published ON room (id) WHERE published;

-- `seq` is the order of this server: gap-free from 1; negative for history fetched from others.
CREATE TABLE event (
    room            BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    event_id        TEXT   NOT NULL UNIQUE,
    position        BIGINT NOT NULL,               -- of the commit that accepted it
    pdu             TEXT   NOT NULL,               -- canonical JSON as federated; the redacted form once redacted
    verdict         SMALLINT NOT NULL DEFAULT 0,   -- 0 accepted, 1 soft-failed, 2 rejected
    redacted_by     BIGINT,                        -- seq of the redaction
    sender_device   BIGINT,                        -- for unsigned.transaction_id, together with txn_id
    txn_id          TEXT,
    PRIMARY KEY (room, seq)
);

-- Each change of the current state, at the seq where it took effect. State at a seq is the latest row per key at or below it.
CREATE TABLE state_log (
    room            BIGINT NOT NULL,
    type            TEXT   NOT NULL,
    state_key       TEXT   NOT NULL,
    seq             BIGINT NOT NULL,
    event           BIGINT NOT NULL,               -- seq of the state event
    PRIMARY KEY (room, type, state_key, seq)
) WITHOUT ROWID;
CREATE INDEX state_log_seq ON state_log (room, seq);

-- The event ids that no accepted event names as predecessor yet.
CREATE TABLE extremity (
    room            BIGINT NOT NULL,
    event           BIGINT NOT NULL,               -- seq
    PRIMARY KEY (room, event)
) WITHOUT ROWID;

-- The current membership of everybody who ever had one: the room log's m.room.member, by user.
CREATE TABLE membership (
    user_id         TEXT   NOT NULL,
    room            BIGINT NOT NULL,
    membership      TEXT   NOT NULL,               -- join, invite, knock, leave, ban
    event           BIGINT NOT NULL,               -- seq of the member event
    forgotten       BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (user_id, room)
) WITHOUT ROWID;
CREATE INDEX membership_room ON membership (room, membership);

CREATE TABLE alias (
    alias           TEXT   NOT NULL PRIMARY KEY,
    room            BIGINT NOT NULL,
    creator         TEXT   NOT NULL,
    created_ts      BIGINT NOT NULL
);
CREATE INDEX alias_room ON alias (room);

-- Same device, path and transaction id: the same answer. `path` is a hash of the request's method and path.
CREATE TABLE txn (
    device          BIGINT NOT NULL,
    path            BIGINT NOT NULL,
    txn_id          TEXT   NOT NULL,
    event           TEXT   NOT NULL,               -- event id
    created_ts      BIGINT NOT NULL,
    PRIMARY KEY (device, path, txn_id)
) WITHOUT ROWID;

---- Queues ----

-- Entries that are not in the queues of their recipients yet: one row for all whom a step of a write reaches. They are
-- moved on in bulk, so that a message to ten people touches one page and not twenty.
CREATE TABLE delivery (
    position        INTEGER NOT NULL PRIMARY KEY,
    kind            SMALLINT NOT NULL,
    room            BIGINT NOT NULL,
    item            BIGINT NOT NULL,
    thread          TEXT   NOT NULL,
    recipients      TEXT   NOT NULL                -- JSON: [[recipient, flags], …]
);

-- What must reach a recipient, in order. An entry is a pointer; see `queue::Kind` for what `item` points at.
CREATE TABLE queue (
    recipient       BIGINT NOT NULL,
    position        BIGINT NOT NULL,
    kind            SMALLINT NOT NULL,
    room            BIGINT NOT NULL,
    item            BIGINT NOT NULL,
    flags           BIGINT NOT NULL,
    PRIMARY KEY (recipient, position)
) WITHOUT ROWID;

-- Events that notify a user and that no receipt of theirs has passed: unread counts are counts of these.
CREATE TABLE unread (
    recipient       BIGINT NOT NULL,
    room            BIGINT NOT NULL,
    seq             BIGINT NOT NULL,
    highlight       BOOLEAN NOT NULL,
    thread          TEXT   NOT NULL DEFAULT '',    -- thread root; '' is the main timeline
    PRIMARY KEY (recipient, room, seq)
) WITHOUT ROWID;

-- `thread` is '' for an unthreaded receipt, 'main' or a root event id otherwise. `changed` is the position of the write.
CREATE TABLE receipt (
    room            BIGINT NOT NULL,
    user_id         TEXT   NOT NULL,
    type            TEXT   NOT NULL,               -- m.read, m.read.private
    thread          TEXT   NOT NULL,
    event_id        TEXT   NOT NULL,
    seq             BIGINT NOT NULL,
    ts              BIGINT NOT NULL,
    changed         BIGINT NOT NULL,
    PRIMARY KEY (room, user_id, type, thread)
);
CREATE INDEX receipt_changed ON receipt (room, changed);
