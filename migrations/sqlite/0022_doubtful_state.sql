-- Events of a room's state, as other servers gave it, that couldn't be had or verified then, each since when (milliseconds).
CREATE TABLE lacking_state (
    room            BIGINT NOT NULL,
    event_id        TEXT   NOT NULL,
    since           BIGINT NOT NULL,
    PRIMARY KEY (room, event_id)
) WITHOUT ROWID;
