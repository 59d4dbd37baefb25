-- Tokens by which users prove to others who they are ("OpenID"). Only hashes are stored.
CREATE TABLE openid_token (
    hash            TEXT   NOT NULL PRIMARY KEY,
    recipient       BIGINT NOT NULL,
    expires_ts      BIGINT NOT NULL
);
CREATE INDEX openid_token_expires ON openid_token (expires_ts);
