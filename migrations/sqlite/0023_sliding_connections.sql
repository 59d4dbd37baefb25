-- What a server that stops leaves to its next run: how far each connection of sliding sync is. Empty while it runs.

CREATE TABLE sliding_connection (
    place           BIGINT NOT NULL PRIMARY KEY,   -- those that asked last come first
    device          BIGINT NOT NULL,
    conn_id         TEXT   NOT NULL,
    state           TEXT   NOT NULL                -- JSON
);
