-- Events that the server sends later, for users who may be gone by then (MSC4140).

CREATE TABLE delayed_event (
    delay_id        TEXT   NOT NULL PRIMARY KEY,
    recipient       BIGINT NOT NULL,               -- who scheduled it
    device          BIGINT NOT NULL,               -- with which device, in which transaction: see `txn`
    path            BIGINT NOT NULL,
    txn_id          TEXT,                          -- NULL: not in one
    room            BIGINT NOT NULL,
    type            TEXT   NOT NULL,
    state_key       TEXT,                          -- NULL: not state
    content         TEXT   NOT NULL,
    delay           BIGINT NOT NULL,               -- ms
    scheduled_ts    BIGINT NOT NULL,               -- or last restarted
    send_ts         BIGINT NOT NULL,               -- scheduled_ts + delay
    finalised_ts    BIGINT,                        -- NULL: still to be sent
    event           TEXT,                          -- event id: it was sent
    error           TEXT                           -- JSON: why it couldn't be. Neither: it was cancelled
);
CREATE INDEX delayed_event_due ON delayed_event (send_ts) WHERE finalised_ts IS NULL;
CREATE INDEX delayed_event_of ON delayed_event (recipient, finalised_ts);
CREATE INDEX delayed_event_final ON delayed_event (finalised_ts) WHERE finalised_ts IS NOT NULL;
CREATE UNIQUE INDEX delayed_event_txn ON delayed_event (device, path, txn_id) WHERE txn_id IS NOT NULL;
