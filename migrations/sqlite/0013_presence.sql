-- What users were last seen as. Written now and then, and when they say something about themselves.

CREATE TABLE presence (
    recipient       BIGINT NOT NULL PRIMARY KEY,
    state           SMALLINT NOT NULL,             -- 0 offline, 1 unavailable, 2 online
    last_active_ts  BIGINT NOT NULL,
    status_msg      TEXT
);
CREATE INDEX presence_there ON presence (recipient) WHERE state > 0;
