-- Rate limits of single accounts, in place of those that the configuration has for everybody.

CREATE TABLE user_limit (
    recipient       BIGINT NOT NULL,
    class           TEXT   NOT NULL,               -- see limits::Class
    per_1000s       BIGINT,                        -- requests in 1000 seconds; NULL: no limit
    burst           BIGINT,
    PRIMARY KEY (recipient, class)
);
