-- Other servers as recipients of queues: their numbers are negative.

CREATE TABLE destination (
    server          TEXT   NOT NULL PRIMARY KEY,
    recipient       BIGINT NOT NULL UNIQUE,
    position        BIGINT NOT NULL,               -- all up to here has been sent
    behind          BOOLEAN NOT NULL DEFAULT FALSE, -- nothing is put into its queue: it gets what it missed from the room logs
    failures        BIGINT NOT NULL DEFAULT 0,     -- in a row
    retry_ts        BIGINT NOT NULL DEFAULT 0,     -- it isn't tried before
    error           TEXT                           -- why the last attempt failed
);
CREATE INDEX destination_behind ON destination (recipient) WHERE behind;

-- In which rooms a server has or had somebody.
CREATE INDEX membership_server ON membership (substr(user_id, instr(user_id, ':') + 1), room);
