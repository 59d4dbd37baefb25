-- When the first of the attempts that have failed in a row began.

ALTER TABLE destination ADD COLUMN failing_since BIGINT NOT NULL DEFAULT 0;
