-- What is known of the keys of other servers: a KnownKeys of the federation crate, as JSON.

CREATE TABLE server_key (
    server          TEXT   NOT NULL PRIMARY KEY,
    keys            TEXT   NOT NULL
);
