-- Threads that users want to hear of, whatever they want of the room (MSC4306). A subscription that ended stays as a row:
-- what was seen before its end doesn't begin it anew, and other devices have to learn of the end.

CREATE TABLE thread_subscription (
    recipient       BIGINT NOT NULL,
    room            BIGINT NOT NULL,
    root            TEXT   NOT NULL,               -- event id
    subscribed      BOOLEAN NOT NULL,
    automatic       BOOLEAN NOT NULL,              -- a client subscribed by itself
    ended           BIGINT NOT NULL DEFAULT 0,     -- the last seq of the room when the user last unsubscribed
    changed         BIGINT NOT NULL,               -- position of the write
    PRIMARY KEY (recipient, room, root)
);
CREATE INDEX thread_subscription_changed ON thread_subscription (recipient, changed);
CREATE INDEX thread_subscription_root ON thread_subscription (room, root) WHERE subscribed;
