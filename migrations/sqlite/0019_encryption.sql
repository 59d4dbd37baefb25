-- End-to-end encryption: what devices publish, and what is sent to them. The server never sees a secret.

-- Public keys of devices: of users here, and of those elsewhere whose lists are followed.
CREATE TABLE device_key (
    user_id         TEXT   NOT NULL,
    device_id       TEXT   NOT NULL,
    keys            TEXT,                          -- the object as its device signed it; none: a device without encryption
    display_name    TEXT,                          -- of devices elsewhere
    PRIMARY KEY (user_id, device_id)
);

-- Public keys of users, with the signatures that they came with.
CREATE TABLE cross_signing_key (
    user_id         TEXT   NOT NULL,
    usage           TEXT   NOT NULL,               -- master, self_signing, user_signing
    public_key      TEXT   NOT NULL,               -- unpadded base64
    key             TEXT   NOT NULL,               -- the object
    PRIMARY KEY (user_id, usage)
);

-- Signatures under keys of devices and users that were made later.
CREATE TABLE key_signature (
    user_id         TEXT   NOT NULL,               -- whose key is signed
    signed          TEXT   NOT NULL,               -- a device's id, or a public key
    signer          TEXT   NOT NULL,
    signer_key      TEXT   NOT NULL,               -- ed25519:…
    signature       TEXT   NOT NULL,
    PRIMARY KEY (user_id, signed, signer, signer_key)
);
CREATE INDEX key_signature_by ON key_signature (signer, signer_key);

-- Keys that are handed out once each, in the order in which they came. Those that are gone are remembered for a while, so
-- that a device which uploads them again doesn't make them be handed out again.
CREATE TABLE one_time_key (
    device          BIGINT NOT NULL,
    algorithm       TEXT   NOT NULL,
    key_id          TEXT   NOT NULL,
    place           BIGINT NOT NULL,               -- unique for device and algorithm
    key             TEXT   NOT NULL,
    claimed         BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (device, algorithm, key_id)
);
CREATE INDEX one_time_key_order ON one_time_key (device, algorithm, place) WHERE NOT claimed;
CREATE INDEX one_time_key_claimed ON one_time_key (device, algorithm, place) WHERE claimed;

-- What is handed out when those are used up.
CREATE TABLE fallback_key (
    device          BIGINT  NOT NULL,
    algorithm       TEXT    NOT NULL,
    key_id          TEXT    NOT NULL,
    key             TEXT    NOT NULL,
    used            BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (device, algorithm)
);

-- Messages for one device each, or for one server's devices: below zero a mailbox is that server's number.
CREATE TABLE to_device (
    mailbox         BIGINT NOT NULL,
    position        BIGINT NOT NULL,
    message         TEXT   NOT NULL,
    created_ts      BIGINT NOT NULL,
    PRIMARY KEY (mailbox, position)
);
CREATE INDEX to_device_age ON to_device (created_ts);

-- Messages that other servers have brought: none is taken twice.
CREATE TABLE heard_message (
    server          TEXT   NOT NULL,
    message_id      TEXT   NOT NULL,
    heard_ts        BIGINT NOT NULL,
    PRIMARY KEY (server, message_id)
);
CREATE INDEX heard_message_age ON heard_message (heard_ts);

-- Changes of somebody's devices and keys. Those of users here form a chain.
CREATE TABLE device_list_change (
    position        BIGINT NOT NULL PRIMARY KEY,
    user_id         TEXT   NOT NULL,
    device_id       TEXT,                          -- none: the user's own keys
    previous        BIGINT                         -- the user's change before
);
CREATE INDEX device_list_change_user ON device_list_change (user_id, position);

-- Users elsewhere whose devices are known here, as of their server's last word.
CREATE TABLE followed_list (
    user_id         TEXT    NOT NULL PRIMARY KEY,
    stream_id       BIGINT  NOT NULL,
    stale           BOOLEAN NOT NULL               -- something was missed: their server has to be asked
);
CREATE INDEX followed_list_stale ON followed_list (user_id) WHERE stale;
