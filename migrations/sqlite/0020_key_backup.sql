-- What users' clients keep here, encrypted, for their next device: backups of the keys of messages, and a device to be brought
-- to life.

-- Each time that a user begins anew is a version. A deleted one stays, without its keys: no version is given out twice.
CREATE TABLE key_backup (
    recipient       BIGINT  NOT NULL,
    version         BIGINT  NOT NULL,
    algorithm       TEXT    NOT NULL,
    auth_data       TEXT    NOT NULL,              -- a JSON object
    keys            BIGINT  NOT NULL,              -- the set of its keys
    count           BIGINT  NOT NULL DEFAULT 0,    -- how many these are
    etag            BIGINT  NOT NULL DEFAULT 0,    -- how often they changed
    deleted         BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (recipient, version)
);

CREATE TABLE backed_up_key (
    keys            BIGINT  NOT NULL,
    room_id         TEXT    NOT NULL,
    session_id      TEXT    NOT NULL,
    first_message_index BIGINT NOT NULL,
    forwarded_count BIGINT  NOT NULL,
    is_verified     BOOLEAN NOT NULL,
    session_data    TEXT    NOT NULL,              -- JSON
    PRIMARY KEY (keys, room_id, session_id)
);

-- Sets that nobody can read any more. Their keys are deleted a few at a time.
CREATE TABLE doomed_keys (
    keys            BIGINT  NOT NULL PRIMARY KEY
);

INSERT INTO counter (name, value) VALUES ('backed up keys', 0);

-- The device of a user that nobody is logged in on.
CREATE TABLE dehydrated_device (
    recipient       BIGINT  NOT NULL PRIMARY KEY,
    device          BIGINT  NOT NULL UNIQUE,
    data            TEXT    NOT NULL               -- JSON: its secrets, encrypted
);
