-- How far deliveries are in `queue` and `unread`: not the same for all, but for each part of the recipients (their number modulo
-- 32), and for what events are found by (32).
CREATE TABLE settled (
    part            BIGINT NOT NULL PRIMARY KEY,
    position        BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO settled (part, position)
SELECT CAST(p.value AS BIGINT), h.settled
FROM head h, json_each('[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32]') p;
ALTER TABLE head DROP COLUMN settled;
